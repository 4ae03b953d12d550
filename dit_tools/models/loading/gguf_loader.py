"""A transformer from a GGUF file whose tensors have diffusers' names.

Q4_0 and Q8_0 keep their bits in memory, as ``nn.packed`` layers with 32 weights a scale: the codes
are the same, in another order. Other types become plain weights in the wanted precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError
from dit_tools.models.loading import gguf_file, quantized, validation
from dit_tools.models.loading.gguf_file import Tensor

FILE = "diffusion_pytorch_model.gguf"
BITS = {"Q4_0": 4, "Q8_0": 8}
BLOCK = 32


def is_gguf(folder: Path) -> bool:
    """Whether a model's transformer is a GGUF file."""
    return (folder / quantized.PART / FILE).is_file()


def parts(folder: Path, dtype: Any) -> dict[str, Any]:
    """``{"transformer": module}`` of a folder with a GGUF file, else nothing."""
    if not is_gguf(folder):
        return {}
    path = folder / quantized.PART / FILE
    kind = str(validation.components(folder)[quantized.PART][1])
    return {quantized.PART: load(path, quantized.empty(path.parent, kind), dtype)}


def load(path: Path, module: Any, dtype: Any) -> Any:
    """Fill an empty network. Raises ModelError where file and network do not fit."""
    import torch

    there = gguf_file.header(path)
    _check(path, module, there)
    _replace(module, there)
    wide = getattr(module, "_keep_in_fp32_modules", None) or ()
    state: dict[str, Any] = {}
    for name, tensor in there.items():
        layer, _, last = name.rpartition(".")
        if last == "weight" and _is_packed(module, layer):
            codes = _codes(gguf_file.blocks(path, tensor), tensor)
            state |= {f"{layer}.{key}": value for key, value in codes.items()}
            continue
        keep = any(word in name.split(".") for word in wide)
        made = torch.from_numpy(gguf_file.to_numpy(path, tensor).copy())
        state[name] = made.to(torch.float32 if keep else dtype)
    module.load_state_dict(state, strict=True, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module.eval()


def _check(path: Path, module: Any, there: Mapping[str, Tensor]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    lacking, strange = sorted(wanted.keys() - there), sorted(there.keys() - wanted.keys())
    if lacking or strange:
        what = f"lacks {lacking[0]}" if lacking else f"{strange[0][:80]!r} is none of its tensors"
        raise ModelError(f"{path}: does not fit {type(module).__name__}, {what}", validation.DAMAGED)
    for name, shape in wanted.items():
        if there[name].shape != shape:
            raise ModelError(
                f"{path}: {name} is {list(there[name].shape)} where {list(shape)} is wanted", validation.DAMAGED
            )


def _replace(module: Any, there: Mapping[str, Tensor]) -> None:
    from torch import nn

    from dit_tools.nn.packed import PackedLinear
    from dit_tools.nn.packed_layout import Layout

    for name, layer in list(module.named_modules()):
        tensor = there.get(f"{name}.weight")
        if type(layer) is nn.Linear and tensor is not None and tensor.kind in BITS:
            rows, columns = tensor.shape
            group = BLOCK if columns > BLOCK else 0
            layout = Layout(rows, columns, "int", BITS[tensor.kind], group)
            module.set_submodule(name, PackedLinear(layout, layer.bias))


def _is_packed(module: Any, layer: str) -> bool:
    from dit_tools.nn.packed import PackedLinear

    return isinstance(module.get_submodule(layer), PackedLinear)


def _codes(raw: Any, tensor: Tensor) -> dict[str, Any]:
    """Blocks as the tensors of a packed layer: a float16 scale, then 32 codes.

    Q4_0 holds code j and j + 16 in one byte, Q8_0 signed bytes.
    """
    import numpy as np
    import torch

    from dit_tools.nn.packed import pack

    rows, columns = tensor.shape
    parts = np.ascontiguousarray(raw).reshape(rows, columns // BLOCK, -1)
    scale = parts[..., :2].copy().view(np.float16)[..., 0]
    body = parts[..., 2:]
    if tensor.kind == "Q4_0":
        codes = np.concatenate([body & 15, body >> 4], -1)
    else:
        codes = body ^ 128  # a signed byte moved up by 128
    flat = torch.from_numpy(codes.reshape(rows, columns).copy())
    return {"packed": pack(flat, BITS[tensor.kind]), "scale": torch.from_numpy(scale.copy())}


def blocks_of(tensors: Mapping[str, Any], rows: int, columns: int, kind: str) -> Any:
    """The inverse of ``_codes``: blocks (rows, bytes), numpy, of a packed layer."""
    import numpy as np

    from dit_tools.nn.packed import unpack

    codes = unpack(tensors["packed"], BITS[kind], columns).numpy().reshape(rows, -1, BLOCK)
    if kind == "Q4_0":
        body = codes[..., : BLOCK // 2] | codes[..., BLOCK // 2 :] << 4
    else:
        body = codes ^ 128
    scale = tensors["scale"].numpy().reshape(rows, -1, 1).view(np.uint8)
    return np.concatenate([scale.reshape(rows, codes.shape[1], 2), body], -1).reshape(rows, -1)
