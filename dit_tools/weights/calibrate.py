"""What layers are fed while the full network samples: second moments and peaks of their inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dit_tools.core.errors import MemoryLimitError, ModelError
from dit_tools.models.families._base import Prompts
from dit_tools.models.model import Model
from dit_tools.weights import probing
from dit_tools.weights.layers import Layers
from dit_tools.weights.quantize._base import Seen

CALLS = 20
"""Network calls a prompt where times are random."""


def check_memory(layers: Layers) -> None:
    """Raise MemoryLimitError when the moments of all layers do not fit into this machine."""
    needed = 4 * (layers.numbers + sum(layer.columns**2 for layer in _watched(layers)))
    total = (
        os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    )
    if total and needed > total:
        raise MemoryLimitError(
            f"--scheme: calibration needs {needed / 1e9:.0f} GB, "
            f"this machine has {total / 1e9:.0f} GB",
            "use --scheme rtn, which needs none",
        )


def _watched(layers: Layers) -> list[Any]:
    return [layer for layer in layers.linear if layer.layout and layer.packer.calibration]


def observe(
    model: Model, layers: Layers, how: str, prompts: Sequence[str], steps: int | None
) -> dict[str, Seen]:
    """Run the model and return what each layer that is to be packed saw, by its name.

    ``how``: ``trajectory`` samples the prompts as the model is used, so that every time and both
    branches of guidance are seen as often as they occur (Q-Diffusion, arXiv:2302.04304, Sec. 4.2);
    ``random`` feeds plain noise at random times, as calibration that ignores the process does.
    Raises ModelError when something that is not finite comes by.
    """
    names = [layer.name for layer in _watched(layers)]
    with _watching(model.network, names) as sums:  # type: ignore[arg-type]
        if how == "trajectory":
            for _ in probing.draw(model, prompts, steps):
                pass
        else:
            _random(model, prompts, steps or CALLS)
    for name, (moments, _, _) in sums.items():
        if not bool(moments.isfinite().all()):
            raise ModelError(f"calibration: {name} is fed NaN or infinity", "use another model")
    return {name: Seen(moments / count, peak) for name, (moments, peak, count) in sums.items()}


def _random(model: Model, prompts: Sequence[str], calls: int) -> None:
    import torch

    generator, size = torch.Generator().manual_seed(0), model.defaults.size
    shape = model.family.latent_shape(size, size)
    for prompt in prompts:
        conditions = model.encode(Prompts((prompt,), ("",), size, size))
        for _ in range(calls):
            t = float(torch.rand((), generator=generator)) * 0.998 + 0.001
            x = model.to_array(torch.randn((1, *shape), generator=generator))
            for condition in conditions.values():
                model.network(**model.family.inputs(x, t, condition))


@contextmanager
def _watching(network: Any, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Inside, calls of the named layers add up: name -> (sum of x x^T, peak, number of tokens)."""
    sums: dict[str, Any] = {}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).float()
            moments, peak = (x.T @ x).cpu(), x.abs().amax(0).cpu()
            if name in sums:
                before, top, count = sums[name]
                sums[name] = before.add_(moments), top.maximum(peak), count + len(x)
            else:
                sums[name] = moments, peak, len(x)

        return hook

    handles = [network.module.get_submodule(name).register_forward_pre_hook(watch(name))
               for name in names]  # fmt: skip
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
