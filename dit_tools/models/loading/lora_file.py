"""What a LoRA file changes, layer by layer, in one form for all tools and families."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.models.families import family_class
from dit_tools.models.loading import validation
from dit_tools.models.loading.lora_names import Layers, Target, split_key

WEIGHTS = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""File names inside a folder, as diffusers and peft save them."""
CONFIG = "adapter_config.json"
NETWORKS = ("transformer", "unet")
TYPES = ("LORA", "LOHA", "LOKR")
STARTS = ("pissa", "olora", "corda", "loftq", "eva")
"""Initializations of peft that change the base weights as well."""
SHOWN = 3
logger = logging.getLogger("dit_tools")


@dataclass
class LoraFile:
    """A file in one form: the file's layer -> its tensors by kind, and where it belongs."""

    count: int
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)
    layers: dict[str, list[Target]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    known: Layers | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def read(pipe: Any, path: Path) -> LoraFile:
    """The file's tensors by layer of the pipeline. Raises UnsupportedError for kinds that dit cannot apply."""
    from safetensors.torch import load_file

    keys: dict[str, list[tuple[str, str]]] = {}
    tensors = load_file(path)
    made = LoraFile(len(tensors), config=_config(path))
    main = next(part for part in NETWORKS if getattr(pipe, part, None) is not None)
    parts = {name: part for name, part in pipe.components.items() if hasattr(part, "named_modules")}
    family = family_class(type(pipe).__name__)
    made.known = Layers(parts, main, family.lora if family else {})
    for key in tensors:
        parsed = split_key(key)
        if parsed is None:
            made.unmatched.append(key)
        else:
            keys.setdefault(parsed[0], []).append((parsed[1], key))
    for stem, found in keys.items():
        targets = [t for t in made.known.find(stem) if _changeable(made.known, t)]
        if not targets:
            made.unmatched += [key for _, key in found]
            continue
        for kind, key in found:
            if kind.startswith("unknown:"):
                message = f"--lora {path}: {key} ({kind.partition(':')[2]}) cannot be applied exactly"
                raise UnsupportedError(message, "convert it to a plain LoRA, or merge it in the program that made it")
        made.layers[stem] = targets
        made.tensors[stem] = {kind: tensors[key] for kind, key in found}
    return made


def _changeable(layers: Layers, target: Target) -> bool:
    import torch

    module = layers.modules[target.part][target.layer]
    return isinstance(module, torch.nn.Linear | torch.nn.Conv2d) or hasattr(module, "in_features")


def change_layers(read: LoraFile, path: Path, strength: float) -> int:
    """Attach what a file holds at ``strength``; the number of layers changed."""
    from dit_tools.nn.weight_changes import attach

    if not read.layers:
        raise does_not_fit(path)
    assert read.known is not None
    made, effect = [], False
    for stem, targets in read.layers.items():
        for target in targets:
            module = read.known.modules[target.part][target.layer]
            change = _change_of(read, path, stem, target, strength, module)
            made.append((module, change))
    effect = any(_acts(change) for _, change in made)
    if not effect and strength:
        raise changes_nothing(path)
    for module, change in made if strength else ():
        attach(module, change)
    if read.unmatched:
        some = ", ".join(sorted(read.unmatched)[:SHOWN]) + (", ..." if len(read.unmatched) > SHOWN else "")
        logger.warning("%d of %d keys of %s fit nothing: %s", len(read.unmatched), read.count, path, some)
    return len(made)


def _acts(change: Any) -> bool:
    if change.bias is not None and bool(change.bias.any()) or change.magnitude is not None:
        return True
    return getattr(change, "difference", True) is not None and bool(change.weight().any())


def _change_of(read: LoraFile, path: Path, stem: str, target: Target, strength: float, module: Any) -> Any:
    """The change of one layer. Raises ModelError when it is incomplete or of another shape."""
    from dit_tools.nn import weight_changes as w

    given = read.tensors[stem]

    def rows(x: Any) -> Any:
        """The layer's share of a tensor with the file's rows."""
        if x is None or (target.rows is None and not target.halves_swapped):
            return x
        return x[target.rows] if target.rows else x.roll(len(x) // 2, 0)

    def scale(rank: int) -> float:
        return strength * _scale(read.config, given, target.layer, rank)

    magnitude, plain = _magnitude(given, rows, path, stem, module), {"bias": None}
    if "down" in given and "up" in given:
        down, up = given["down"], rows(given["up"])
        s = scale(down.shape[0])
        bias = given.get("lora_bias")
        made = w.LowRank(down, up, s, magnitude=magnitude, bias=None if bias is None else rows(bias) * s)
    elif "hada_w1_a" in given:
        a1, b1, a2, b2 = (given[f"hada_w{i}_{half}"] for i in (1, 2) for half in "ab")
        made = w.Hadamard(rows(a1), b1, rows(a2), b2, scale(b1.shape[0]), magnitude=magnitude, **plain)
    elif any(kind.startswith("lokr_") for kind in given):
        made = _kronecker(given, target, rows, scale, magnitude)
    elif "diff" in given or "diff_b" in given:
        bias = rows(given.get("diff_b"))
        made = w.Dense(
            rows(given.get("diff")), strength, magnitude=magnitude, bias=None if bias is None else bias * strength
        )
    else:
        raise does_not_fit(path, f"{stem} is incomplete: it has {', '.join(sorted(given))} alone")
    _check_shape(made, module, path, stem)
    return made


def _kronecker(given: Mapping[str, Any], target: Target, rows: Any, scale: Any, magnitude: Any) -> Any:
    from dit_tools.nn import weight_changes as w

    halves, ranks = [], []
    for i in (1, 2):
        whole = given.get(f"lokr_w{i}")
        if whole is None:
            a, b = given[f"lokr_w{i}_a"], given[f"lokr_w{i}_b"]
            ranks.append(b.shape[0])
            whole = a.float() @ b.float()
        halves.append(whole)
    made = w.Kronecker(halves[0], halves[1], scale(ranks[-1]) if ranks else scale(0), magnitude=magnitude, bias=None)
    if target.rows is None and not target.halves_swapped:
        return made
    return w.Dense(rows(made.weight()), 1.0, magnitude=magnitude, bias=None)  # shares are no Kronecker products


def _magnitude(given: Mapping[str, Any], rows: Any, path: Path, stem: str, module: Any) -> Any:
    """DoRA's magnitudes: (outputs,), or (1, inputs)."""
    value = given.get("magnitude")
    if value is None:
        return None
    if getattr(module, "weight", None) is None or not module.weight.is_floating_point():
        message = f"--lora {path}: DoRA ({stem}) needs the layer's weight, which is packed here"
        raise UnsupportedError(message, "use the plain model")
    weight = module.weight
    if value.ndim == 2 and value.shape == (1, weight.shape[1]) and weight.shape[1] != weight.shape[0]:
        return value
    value = rows(value.flatten())
    if value.shape != (weight.shape[0],):
        raise UnsupportedError(
            f"--lora {path}: the magnitudes of {stem} have the shape {tuple(given['magnitude'].shape)}",
            "convert it to a plain LoRA",
        )
    return value


def _check_shape(change: Any, module: Any, path: Path, stem: str) -> None:
    """Raise ModelError for a change that does not fit the layer's weight."""
    import torch

    if getattr(change, "difference", True) is None:
        return
    wanted = module.weight.numel() if isinstance(module, torch.nn.Conv2d) else module.in_features * module.out_features
    try:
        got = change.weight()
    except RuntimeError as error:
        raise does_not_fit(path, str(error)) from None
    if got.numel() != wanted or got.shape[0] != getattr(module, "out_features", got.shape[0]):
        raise does_not_fit(path, f"{stem} is {tuple(got.shape)}")


def _scale(config: Mapping[str, Any], given: Mapping[str, Any], layer: str, rank: int) -> float:
    """Alpha / rank of a layer: of the file's own alpha, else of peft's configuration, else 1."""
    from dit_tools.nn.weight_changes import rank_scale

    if "alpha" in given:
        return rank_scale(float(given["alpha"]), rank) if rank else 1.0
    if not config:
        return 1.0
    from peft.utils.other import get_pattern_key

    patterns = config.get("alpha_pattern") or {}
    alpha = patterns.get(get_pattern_key(list(patterns), layer), config.get("lora_alpha", config.get("alpha")))
    ranks = config.get("rank_pattern") or {}
    rank = rank or int(ranks.get(get_pattern_key(list(ranks), layer), config.get("r", 0)) or 0)
    return rank_scale(float(alpha), rank, bool(config.get("use_rslora"))) if alpha is not None and rank else 1.0


def _config(path: Path) -> Mapping[str, Any]:
    """Peft's configuration: next to the weights, or in their metadata. Raises UnsupportedError."""
    beside = path.parent / CONFIG
    if path.name == WEIGHTS[1] and beside.is_file():
        table = validation.read_json(beside, 1_000_000)
    else:
        try:
            table = json.loads(validation.metadata(path).get("lora_adapter_metadata", "{}"))
        except ValueError:
            table = {}
        prefixes = tuple(f"{part}." for part in NETWORKS)
        table = {key.partition(".")[2]: value for key, value in table.items() if key.startswith(prefixes)}
    kind, start = str(table.get("peft_type") or "LORA").upper(), table.get("init_lora_weights")
    if kind not in TYPES:
        raise UnsupportedError(f"--lora {path}: peft_type {kind} is not known", f"dit applies {', '.join(TYPES)}")
    if isinstance(start, str) and start.startswith(STARTS):
        message = f"--lora {path}: init_lora_weights={start} changes the base weights"
        raise UnsupportedError(message, "convert it to a plain LoRA with peft")
    if table.get("fan_in_fan_out"):
        raise UnsupportedError(f"--lora {path}: fan_in_fan_out is not known", "convert it to a plain LoRA with peft")
    return table


def changes_nothing(path: Path) -> ModelError:
    """The error for a file whose changes are zero."""
    return ModelError(f"--lora {path}: changes no weight", "its training was not started")


def does_not_fit(path: Path, why: str = "") -> ModelError:
    """The error for a file that does not fit the model, with some of its keys."""
    keys = sorted(validation.header(path))
    shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    lines = lines[1:2] if lines and lines[0].startswith("Error(s) in loading") else lines[:1]
    reason = f" ({lines[0][:120]})" if lines else ""
    return ModelError(
        f"--lora {path}: does not fit this model{reason}; unmatched: {shown}",
        "use a LoRA that was trained for this model",
    )
