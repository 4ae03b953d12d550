"""Reading a transformer that ``dit quantize`` packed: checked in full before anything is allocated.

``config.json`` holds ``quantization_config`` with ``quant_method`` ``dit`` and, by the name of each
packed layer, its ``nn.layouts.Layout``. In the safetensors file ``LAYER.packed`` and its companions
stand in the place of ``LAYER.weight``; everything else is as diffusers has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError
from dit_tools.models.backends import torchao_kernels
from dit_tools.models.loading import validation

METHOD, VERSION = "dit", 1
PART = "transformer"
KEY = "quantization_config"
FILE = "diffusion_pytorch_model.safetensors"
TYPES = {"F32": 4, "F16": 2, "BF16": 2}


def table(folder: Path) -> dict[str, Any] | None:
    """What a model's folder says of packed layers; None where it has none of ours.

    Raises ModelError where it is damaged or of a later version.
    """
    path = folder / PART / "config.json"
    if not path.is_file():
        return None
    found = validation.read_json(path, 10_000_000).get(KEY)
    if not isinstance(found, dict) or found.get("quant_method") != METHOD:
        return None
    if found.get("version") != VERSION:
        raise ModelError(f"{path}: packed by another version of dit", "pip install -U dit-tools")
    if not isinstance(found.get("layers"), dict):
        raise ModelError(f"{path}: names no packed layers", validation.DAMAGED)
    return found


def parts(folder: Path, dtype: Any) -> dict[str, Any]:
    """``{"transformer": module}`` of a folder with packed layers, else nothing.

    Raises ModelError naming the file when config and weights do not fit each other.
    """
    found = table(folder)
    if found is None:
        return {}
    library, kind = validation.components(folder)[PART]
    if library != "diffusers":
        raise ModelError(f"{folder}: no transformer of diffusers is packed there", validation.DAMAGED)
    module = load(folder / PART, str(kind), found["layers"], dtype)
    if found.get("kernels") == torchao_kernels.NAME:
        torchao_kernels.use(module, dtype)
    return {PART: module}


def load(folder: Path, kind: str, layers: Mapping[str, Any], dtype: Any) -> Any:
    """The network of ``folder``, its plain weights in ``dtype``, packed layers as they are."""
    import torch
    from safetensors import safe_open

    module = empty(folder, kind)
    replace(module, layers, folder / "config.json")
    path = folder / FILE
    there = validation.header(path)
    _check(path, module, there)
    wide = _in_float32(module) if dtype != torch.float32 else ()
    state = {}
    with safe_open(path, framework="pt") as file:
        for name, entry in there.items():
            tensor = file.get_tensor(name)
            if entry["dtype"] in TYPES and not _packed(name, module):
                part = torch.float32 if any(word in name.split(".") for word in wide) else dtype
                tensor = tensor.to(part)
            state[name] = tensor
    module.load_state_dict(state, strict=True, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()


def empty(folder: Path, kind: str) -> Any:
    """A network of that diffusers class without weights. Raises ModelError for a bad config."""
    import diffusers
    from accelerate import init_empty_weights

    made = getattr(diffusers, kind, None)
    if not hasattr(made, "from_config"):
        raise ModelError(f"{folder}: diffusers has no {kind}", "pip install -U diffusers")
    config = validation.read_json(folder / "config.json", 10_000_000)
    with init_empty_weights():
        return made.from_config({k: v for k, v in config.items() if k != KEY})  # type: ignore


def replace(module: Any, layers: Mapping[str, Any], path: Path) -> None:
    """Put empty packed layers in place of linear ones. Raises ModelError naming ``path``."""
    from torch import nn

    from dit_tools.nn.packed import PackedLinear
    from dit_tools.nn.packed_layout import Layout

    linears = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    for name, described in layers.items():
        layer = linears.get(name)
        if layer is None:
            raise ModelError(f"{path}: {name[:80]!r} is no linear layer of the network", validation.DAMAGED)
        try:
            layout = Layout.from_json(described, layer.out_features, layer.in_features)
        except (ValueError, TypeError) as error:
            raise ModelError(f"{path}: layer {name[:80]!r}: {error}", validation.DAMAGED) from None
        module.set_submodule(name, PackedLinear(layout, layer.bias))


def _packed(name: str, module: Any) -> bool:
    from dit_tools.nn.packed import PackedLinear

    layer, _, suffix = name.rpartition(".")
    return suffix != "bias" and isinstance(module.get_submodule(layer), PackedLinear)


def _check(path: Path, module: Any, there: Mapping[str, Any]) -> None:
    """Every tensor of the network is in the file with its shape and, if packed, its type."""
    wanted = module.state_dict()
    lacking, strange = sorted(wanted.keys() - there), sorted(there.keys() - wanted.keys())
    if lacking:
        raise ModelError(f"{path}: lacks {len(lacking)} tensors, such as {lacking[0]}", validation.DAMAGED)
    if strange:
        raise ModelError(f"{path}: {strange[0][:80]!r} is no tensor of the network", validation.DAMAGED)
    for name, tensor in wanted.items():
        entry = there[name]
        kinds = {"uint8": ("U8",), "float16": ("F16",)}.get(str(tensor.dtype)[6:], tuple(TYPES))
        kinds = kinds if _packed(name, module) else tuple(TYPES)
        if entry["shape"] != list(tensor.shape) or entry["dtype"] not in kinds:
            shown = f"{entry['dtype']} {entry['shape']}"
            raise ModelError(f"{path}: {name} is {shown[:60]} where {list(tensor.shape)} is wanted", validation.DAMAGED)


def _in_float32(module: Any) -> tuple[str, ...]:
    """Parts that diffusers keeps in float32 whatever the rest is."""
    return tuple(getattr(module, "_keep_in_fp32_modules", None) or ())
