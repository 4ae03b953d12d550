"""LoRA files on a diffusers pipeline (``--lora PATH[:SCALE]``), through peft.

Hu et al. 2021 (arXiv:2106.09685): a layer's weight W becomes ``W + scale * alpha / r * B A``. The
adapters stay beside the weights, so that half precision loses nothing of them. Pipelines that can
load LoRA convert the formats that other trainers write; for the rest (DiT, PixArt, HunyuanDiT) the
names of peft, diffusers and kohya are understood here. Other adapters of ``dit train`` (DiffFit,
DiffScaler) say so in their file and are taken by the same option.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError, UsageError
from dit_tools.models.loading import validation

WEIGHTS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""File names inside a folder, as diffusers and peft save them."""
PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.", "unet.")
SUFFIX = re.compile(r"\.(?:lora_(?:A|B|down|up)(?:\.default)?|lora\.(?:down|up)|alpha)(?:\.weight)?$")
DOWN = re.compile(r"lora_A|lora_down|lora\.down")
NETWORKS = ("transformer", "unet")
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

    One table per file: ``name``, ``scale``, ``sha256``, ``layers`` (how many were changed).
    Raises ModelError naming the file when it is missing, damaged, a pickle, fits nothing in the
    model, or changes nothing.
    """
    done, scales = [], {}
    for i, lora in enumerate(loras):
        name, path = f"lora_{i}", _file(lora.path)
        if ADAPTER in validation.metadata(path):
            done.append(_entry(path, lora, _put(_network(pipe), path, lora.scale)))
            continue
        with _explained(path):
            if hasattr(pipe, "load_lora_weights"):
                pipe.load_lora_weights(
                    str(path.parent), weight_name=path.name, adapter_name=name, local_files_only=True
                )
            else:
                _inject(_network(pipe), path, name)
        layers = [layer for layer in _layers(pipe) if name in layer.scaling]
        _check_effect(layers, name, path)
        scales[name] = lora.scale
        done.append(_entry(path, lora, len(layers)))
    _activate(pipe, scales)
    return done


def _entry(path: Path, lora: Lora, layers: int) -> dict[str, Any]:
    return {"name": path.name, "scale": lora.scale, "sha256": _sha256(path), "layers": layers}


def _put(network: Any, path: Path, scale: float) -> int:
    """Another adapter of ``dit train`` on the network; how many tensors or layers it changed."""
    from safetensors.torch import load_file

    from dit_tools.nn.adapters import put

    try:
        changed = put(network, load_file(path), scale)
    except ValueError as error:
        raise _unmatched(path, str(error)) from None
    if not changed:
        raise _idle(path)
    return changed


def _idle(path: Path) -> ModelError:
    return ModelError(f"--lora {path}: changes no weight", "its training was not started")


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
        raise _unmatched(path, str(error)) from error
    finally:
        logging.set_verbosity(level)


def _unmatched(path: Path, why: str = "") -> ModelError:
    keys = sorted(validation.header(path))
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    lines = lines[1:2] if lines and lines[0].startswith("Error(s) in loading") else lines[:1]
    reason = f" ({lines[0][:120]})" if lines else ""
    return ModelError(
        f"--lora {path}: does not fit this model{reason}; unmatched: {shown}",
        "use a LoRA that was trained for this model",
    )


def _check_effect(layers: Sequence[Any], name: str, path: Path) -> None:
    if not layers:
        raise _unmatched(path)
    if not any(bool(layer.get_delta_weight(name).any()) for layer in layers):
        raise _idle(path)


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


# pipelines that cannot load LoRA themselves -----------------------------------------------------


def _network(pipe: Any) -> Any:
    return next(getattr(pipe, part) for part in NETWORKS if getattr(pipe, part, None) is not None)


def _inject(network: Any, path: Path, name: str) -> None:
    """Add the file's adapters to ``network``. Keys that name no layer of it are left out."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    tensors, alphas = _sorted_by_layer(load_file(path), network)
    if not tensors:
        raise _unmatched(path)
    ranks = {layer: pair["lora_A"].shape[0] for layer, pair in tensors.items()}
    given = _alpha(path)
    alphas = {layer: alphas.get(layer, given or rank) for layer, rank in ranks.items()}
    config = LoraConfig(
        r=1,
        lora_alpha=1,
        target_modules="|".join(re.escape(layer) for layer in ranks),
        rank_pattern={f"^{re.escape(layer)}": rank for layer, rank in ranks.items()},
        alpha_pattern={f"^{re.escape(layer)}": alpha for layer, alpha in alphas.items()},
    )
    inject_adapter_in_model(config, network, adapter_name=name)
    flat = {f"{layer}.{half}.weight": t for layer, p in tensors.items() for half, t in p.items()}
    set_peft_model_state_dict(network, flat, adapter_name=name)


def _sorted_by_layer(tensors: Mapping[str, Any], network: Any) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """Layer -> its ``lora_A`` and ``lora_B``, and layer -> alpha, for layers that exist."""
    names = {name for name, _ in network.named_modules()}
    flat = {name.replace(".", "_"): name for name in names}  # kohya's spelling
    found: dict[str, dict[str, Any]] = {}
    alphas: dict[str, float] = {}
    for key, tensor in tensors.items():
        suffix = SUFFIX.search(key)
        layer = _layer(key[: suffix.start()], names, flat) if suffix else None
        if suffix is None or layer is None:
            continue
        if "alpha" in suffix[0]:
            alphas[layer] = float(tensor)
        else:
            found.setdefault(layer, {})["lora_A" if DOWN.search(suffix[0]) else "lora_B"] = tensor
    return {layer: pair for layer, pair in found.items() if len(pair) == 2}, alphas


def _layer(stem: str, names: set[str], flat: Mapping[str, str]) -> str | None:
    for prefix in PREFIXES:
        stem = stem.removeprefix(prefix)
    if stem in names:
        return stem
    return flat.get(re.sub(r"^lora_(unet|transformer|te)_", "", stem))


def _alpha(path: Path) -> float | None:
    """``lora_alpha`` as peft or diffusers wrote it: beside the weights, or in their metadata."""
    beside = path.parent / "adapter_config.json"
    if path.name == WEIGHTS[1] and beside.is_file():
        value = validation.read_json(beside, 1_000_000).get("lora_alpha")
    else:
        try:
            table = json.loads(validation.metadata(path).get("lora_adapter_metadata", "{}"))
        except ValueError:
            table = {}
        values = [v for k, v in table.items() if k.split(".")[-1] == "lora_alpha"]
        value = values[0] if values else None
    return float(value) if isinstance(value, int | float) else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
