"""Packed int8 layers run by torchao's kernels instead of our own.

torchao multiplies int8 by int8 (activations a scale per token, as they come) or int8 by floating
point, on CPUs and on CUDA, and gains most under ``torch.compile``. The codes and scales are those
of the file: only who multiplies them changes.
"""

from __future__ import annotations

from typing import Any

from dit_tools.core.errors import UnsupportedError
from dit_tools.nn.packed_layout import Layout

NAME = "torchao"
EXTRA = "pip install 'torchao>=0.18', or use --target folder, which needs none"
SIDE = 8
"""Sides of a matrix product in int8 are multiples of this on CUDA."""


def library() -> Any:
    """Torchao's ``quantization``. Raises UnsupportedError where there is none that works."""
    try:
        from torchao import quantization
    except (ImportError, OSError, AttributeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise UnsupportedError(f"--target torchao: it cannot be used ({line})", EXTRA) from None
    wanted = ("Int8DynamicActivationInt8WeightConfig", "Int8WeightOnlyConfig", "quantize_")
    lacking = [name for name in wanted if not hasattr(quantization, name)]
    if lacking:
        raise UnsupportedError(f"--target torchao: the one here has no {lacking[0]}", EXTRA)
    return quantization


def check_device(device: str) -> None:
    """Raise UnsupportedError for a device that torchao's int8 kernels do not run on."""
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise UnsupportedError(f"--device {device}: torchao's int8 kernels run on cpu and cuda", "use --target folder")


def fits(layout: Layout) -> bool:
    """Whether torchao can run a layer: int8 with a scale a row, full or int8 activations."""
    plain = layout.kind == "int" and layout.bits == 8 and layout.groups == 1 and not layout.zero
    extra = layout.balance or layout.rank or layout.static
    sides = not layout.act or not (layout.rows % SIDE or layout.columns % SIDE)
    return plain and not extra and layout.act in (0, 8) and sides


def use(module: Any, dtype: Any) -> int:
    """Replace the packed layers of a network that torchao can run; returns how many."""
    from dit_tools.nn.packed import PackedLinear

    quantization = library()
    found = {
        name: layer for name, layer in module.named_modules() if isinstance(layer, PackedLinear) and fits(layer.layout)
    }
    for name, layer in found.items():
        module.set_submodule(name, _linear(layer, dtype, quantization))
    return len(found)


def _linear(layer: Any, dtype: Any, quantization: Any) -> Any:
    """An ordinary linear layer whose weight is a tensor of torchao with the very same codes."""
    import torch
    from torch import nn

    layout = layer.layout
    made = nn.Linear(layout.columns, layout.rows, bias=False, dtype=dtype)
    made.weight = nn.Parameter(layer.weight.to(dtype), requires_grad=False)
    made.bias = layer.bias
    config = quantization.Int8DynamicActivationInt8WeightConfig() if layout.act else quantization.Int8WeightOnlyConfig()
    quantization.quantize_(made, config)
    weight: Any = made.weight
    codes = (layer.packed[:, : layout.columns] ^ 128).view(torch.int8)
    weight.qdata.copy_(codes)  # torchao would divide by another step
    weight.scale.copy_(layer.scale)
    return made.eval()
