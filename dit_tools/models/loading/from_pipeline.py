"""The glue between a diffusers pipeline object and a ``Model``."""

from __future__ import annotations

from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.models.backends.torch_network import PipelineTextEncoder, TorchCodec, TorchNetwork
from dit_tools.models.families import family_class, pipelines
from dit_tools.models.family import Family
from dit_tools.models.model import Defaults, Model


def model_from_pipeline(
    pipe: Any, *, name: str, revision: str, device: str, dtype: str, family: Family | None = None
) -> Model:
    """A Model whose parts are those of ``pipe``, which is on its device already (or offloaded).

    ``device`` is where latents live, for example ``cuda:0``; ``dtype`` names the weights' precision
    for metadata. Latents are float32 whatever the weights are.
    Raises UnsupportedError for a pipeline class that no family serves.
    """
    family = family or family_of(pipe)
    return Model(
        name=name,
        revision=revision,
        family=family,
        network=TorchNetwork(pipe.transformer, family),
        codec=TorchCodec(pipe.vae, family),
        encode=PipelineTextEncoder(pipe, family),
        to_array=lambda x: to_tensor(x, device),
        defaults=defaults(family),
        backend="torch",
        device=device,
        dtype=dtype,
        pipe=pipe,
    )


def family_of(pipe: Any) -> Family:
    """The family object of a pipeline. Raises UnsupportedError when its class has no adapter."""
    kind = type(pipe).__name__
    made = family_class(kind)
    if made is None:
        served = ", ".join(pipelines())
        raise UnsupportedError(f"--model: {kind} has no adapter", f"choose a model of {served}")
    return made(config(pipe.transformer), config(pipe.vae), config(pipe.scheduler))


def config(part: Any) -> dict[str, Any]:
    """A part's configuration as it is saved, with ``_class_name``, which lives only in the file."""
    return {**part.config, "_class_name": type(part).__name__}


def defaults(family: Family) -> Defaults:
    """What a family's pipelines document for their calls, with the scheduler's own solver."""
    return Defaults(
        steps=family.default_steps, cfg=family.default_cfg, size=family.default_size, solver=family.facts.solver
    )


def to_tensor(x: Array, device: str) -> Array:
    """A numpy array or tensor as a float32 tensor on ``device``."""
    import torch

    return torch.as_tensor(x).to(device, torch.float32)
