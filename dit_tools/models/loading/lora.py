"""LoRA files and their kin on a diffusers pipeline (``--lora PATH[:SCALE]``).

A layer's weight W becomes ``W + scale * alpha / r * B A`` (Hu et al. 2021, arXiv:2106.09685), or what
``nn.weight_changes`` says for LoHa, LoKr and DoRA. The changes stay next to the weights. The names of
all tools are first brought into one form (``lora_names``), with alpha, rank-stabilized alpha and
peft's patterns; what cannot be applied exactly is refused by name. Pipelines without a family whose
names are not understood are left to diffusers. Other adapters of ``dit train`` (DiffFit, DiffScaler)
say so in their file and are taken by the same option.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError, UsageError
from dit_tools.models.families import family_class
from dit_tools.models.loading import validation
from dit_tools.models.loading.lora_file import NETWORKS, WEIGHTS, change_layers, changes_nothing, does_not_fit, read

ADAPTER = "dit_adapter"
"""Metadata of an adapter that is no LoRA: JSON with its method."""


@dataclass(frozen=True)
class Lora:
    """A LoRA file and how strongly it acts."""

    path: Path
    scale: float


def parse_lora(text: str) -> Lora:
    r"""``PATH[:SCALE]``; the scale is 1 where none is given, and may be negative.

    A path may hold colons (``C:\styles\ink.safetensors:0.5``): only a number behind the last one
    is a scale. Raises UsageError for an empty path or a scale that is not finite.
    """
    path, colon, tail = text.rpartition(":")
    try:
        scale = float(tail) if colon else None
    except ValueError:
        scale = None
    if scale is None or Path(text).exists():
        path, scale = text, 1.0
    if not path.strip() or not math.isfinite(scale):
        raise UsageError(f"--lora {text!r}: not PATH or PATH:SCALE", "give for example ink.safetensors:0.8")
    return Lora(Path(path).expanduser(), scale)


def apply(pipe: Any, loras: Sequence[Lora]) -> list[dict[str, Any]]:
    """Put LoRAs on a pipeline that is not on its device yet; what was done, for metadata.

    One table per file: ``name``, ``scale``, ``sha256``, ``layers`` (how many were changed), ``keys``
    (tensors of the file) and ``unmatched`` (how many of them fit nothing in the model). Keys that fit
    nothing are named in one warning. Raises ModelError naming the file when it is missing, damaged,
    a pickle, fits nothing in the model, or changes nothing; UnsupportedError for what cannot be
    applied exactly.
    """
    done, scales = [], {}
    for i, lora in enumerate(loras):
        path, extra = _file(lora.path), {}
        if ADAPTER in validation.metadata(path):
            layers = _put(_network(pipe), path, lora.scale)
        elif (found := read(pipe, path)).layers or family_class(type(pipe).__name__) or not _loads_itself(pipe):
            layers = change_layers(found, path, lora.scale)
            extra = {"keys": found.count, "unmatched": len(found.unmatched)}
        else:
            layers = _by_diffusers(pipe, path, f"lora_{i}")
            scales[f"lora_{i}"] = lora.scale
        done.append({"name": path.name, "scale": lora.scale, "sha256": _sha256(path), "layers": layers, **extra})
    _activate(pipe, scales)
    return done


def _put(network: Any, path: Path, scale: float) -> int:
    """Another adapter of ``dit train`` on the network; how many tensors or layers it changed."""
    from safetensors.torch import load_file

    from dit_tools.nn.adapters import put

    try:
        changed = put(network, load_file(path), scale)
    except ValueError as error:
        raise does_not_fit(path, str(error)) from None
    if not changed:
        raise changes_nothing(path)
    return changed


def _file(path: Path) -> Path:
    """The weight file itself. Raises ModelError when there is none, or only a pickle."""
    inside = [path / name for name in WEIGHTS if (path / name).is_file()]
    if inside:
        return inside[0]
    if path.suffix in validation.PICKLES and path.is_file():
        raise ModelError(f"--lora {path}: pickled weights can run code", "convert it to safetensors")
    if not path.is_file():
        raise ModelError(f"--lora {path}: no such file", "give a .safetensors file or its folder")
    return path


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors of peft and diffusers in one line; their logs, which say the same, stay quiet."""
    import warnings

    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(60)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        raise does_not_fit(path, str(error)) from error
    finally:
        logging.set_verbosity(level)


def _loads_itself(pipe: Any) -> bool:
    return hasattr(pipe, "load_lora_weights")


def _network(pipe: Any) -> Any:
    return next(getattr(pipe, part) for part in NETWORKS if getattr(pipe, part, None) is not None)


# pipelines without a family -------------------------------------------------------------------------


def _by_diffusers(pipe: Any, path: Path, name: str) -> int:
    """Let diffusers load the file; the number of layers changed."""
    with _explained(path):
        pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name, local_files_only=True)
    layers = [layer for layer in _layers(pipe) if name in layer.scaling]
    if not layers:
        raise does_not_fit(path)
    if not any(bool(layer.get_delta_weight(name).any()) for layer in layers):
        raise changes_nothing(path)
    return len(layers)


def _layers(pipe: Any) -> Iterator[Any]:
    """Every layer of the pipeline that carries an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for part in pipe.components.values():
        if hasattr(part, "modules"):
            yield from (m for m in part.modules() if isinstance(m, BaseTunerLayer))


def _activate(pipe: Any, scales: Mapping[str, float]) -> None:
    """All adapters together, each at its scale."""
    for layer in _layers(pipe):
        present = [name for name in scales if name in layer.scaling]
        layer.set_adapter(present)
        layer.requires_grad_(False)
        for name in present:
            layer.set_scale(name, scales[name])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
