"""Packed weights in torch: bits in and out, dequantization, and the linear layer that runs them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from dit_tools.nn.packed_layout import Layout, layout_word

FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of E2M1; the fourth bit is the sign."""
FP8_MAX, FP4_MAX = 448.0, 6.0
TINY = 2.0**-24
"""Smallest positive float16: a scale is never zero."""


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (rows, n), integers below ``2^bits``, as bytes (rows, packed_bytes(n, bits))."""
    count, size = layout_word(bits)
    kind = torch.uint8 if size == 1 else torch.int64  # 1, 2, 4 and 8 bits fill a byte
    padded = functional.pad(codes.to(kind), (0, -codes.shape[1] % count))
    parts = padded.reshape(codes.shape[0], -1, count)
    if size == 1:
        made = parts[..., 0].clone()
        for i in range(1, count):
            made |= parts[..., i] << (bits * i)
        return made
    whole = torch.stack([parts[..., i] << (bits * i) for i in range(count)]).sum(0)
    split = [((whole >> (8 * i)) & 255) for i in range(size)]
    return torch.stack(split, -1).flatten(1).to(torch.uint8)


def unpack(packed: Tensor, bits: int, codes: int) -> Tensor:
    """The codes (rows, ``codes``) of ``pack``, as uint8."""
    if bits == 8:
        return packed[:, :codes]
    count, size = layout_word(bits)
    if size == 1:  # 1, 2 and 4 bits
        shifts = torch.arange(0, 8, bits, device=packed.device, dtype=torch.uint8)
        parts = (packed[..., None] >> shifts) & ((1 << bits) - 1)
        return parts.flatten(1)[:, :codes]
    kind = torch.int32 if 8 * size <= 24 else torch.int64
    parts = packed.reshape(packed.shape[0], -1, size).to(kind)
    whole = torch.stack([parts[..., i] << (8 * i) for i in range(size)]).sum(0)
    split = [(whole >> (bits * i)) & ((1 << bits) - 1) for i in range(count)]
    made = torch.stack(split, -1).flatten(1)[:, :codes]
    return made.to(torch.uint8)


def spread(values: Tensor, layout: Layout) -> Tensor:
    """A number per group (rows, groups) as one that broadcasts over (rows, columns)."""
    if layout.groups == 1:
        return values
    return values.repeat_interleave(layout.group, 1)[:, : layout.columns]


def dequantize(tensors: Mapping[str, Tensor], layout: Layout, dtype: torch.dtype) -> Tensor:
    """The weight (rows, columns) that packed tensors stand for, without branch and balance."""
    codes = unpack(tensors["packed"], layout.bits, layout.codes)
    if layout.kind == "vq":
        return tensors["codebook"].to(dtype)[codes.int()].flatten(1)
    scale = spread(tensors["scale"], layout).to(dtype)
    if layout.kind == "fp8":
        return codes.contiguous().view(torch.float8_e4m3fn).to(dtype) * scale
    if layout.kind == "fp4":
        return fp4_table(dtype, codes.device)[codes.int()] * scale
    if layout.zero:
        return (codes.to(dtype) - spread(tensors["zero"], layout).to(dtype)) * scale
    return (codes.to(dtype) - 2 ** (layout.bits - 1)) * scale


def restore(tensors: Mapping[str, Tensor], layout: Layout, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight (rows, columns) of the layer as a whole: (packed + up down) balance."""
    made = dequantize(tensors, layout, dtype)
    if layout.rank:
        made = made + tensors["up"].to(dtype) @ tensors["down"].to(dtype)
    return made * tensors["balance"].to(dtype) if layout.balance else made


def fp4_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The sixteen values of E2M1 by their code."""
    return torch.tensor([*FP4, *(-value for value in FP4)], dtype=dtype, device=device)


def quantize_tokens(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Activations (..., channels) as whole numbers and a scale per token (..., 1), symmetric.

    ``x`` is about ``whole * scale``, as ViDiT-Q quantizes activations, as they come.
    """
    top = 2 ** (bits - 1) - 1
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-12) / top
    return (x / scale).round_(), scale


def quantize_all(x: Tensor, bits: int, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Activations as whole numbers at one scale (1,) that was chosen beforehand (PTQ4DM)."""
    top, scale = 2 ** (bits - 1) - 1, scale.to(x.dtype)
    return (x / scale).round_().clamp_(-top, top), scale


class PackedLinear(nn.Module):
    """``nn.Linear`` with a packed weight: made plain for each call, in the type of its input.

    ``weight`` is the plain weight, made again at every look, for code that asks for its type.
    """

    bias: nn.Parameter | None
    packed: Tensor
    scale: Tensor
    balance: Tensor
    input_scale: Tensor
    down: Tensor
    up: Tensor

    def __init__(self, layout: Layout, bias: nn.Parameter | None):
        super().__init__()
        self.layout = layout
        self.in_features, self.out_features = layout.columns, layout.rows
        self.register_parameter("bias", bias)
        self._held: Tensor | None = None
        for name, (kind, shape) in layout.tensors().items():
            dtype = torch.uint8 if kind == "U8" else torch.float16
            self.register_buffer(name, torch.empty(shape, dtype=dtype, device="meta"))

    @property
    def weight(self) -> Tensor:
        """(out, in) in the type of the bias, or float32."""
        dtype = self.bias.dtype if self.bias is not None else torch.float32
        return restore(dict(self.named_buffers()), self.layout, dtype)

    def hold(self) -> PackedLinear:
        """Keep the plain weight in float32 from now on: as fast as plain layers, and as large."""
        self._held = self._plain(torch.float32)
        return self

    def _plain(self, dtype: torch.dtype) -> Tensor:
        if self._held is not None and self._held.dtype == dtype:
            return self._held
        return dequantize(dict(self.named_buffers()), self.layout, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., in) to (..., out)."""
        if self.layout.balance:
            x = x * self.balance.to(x.dtype)
        y = self._product(x)
        if self.layout.rank:
            y = y + (x @ self.down.to(x.dtype).T) @ self.up.to(x.dtype).T
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _product(self, x: Tensor) -> Tensor:
        if not self.layout.act:
            return functional.linear(x, self._plain(x.dtype))
        if self.layout.static:
            whole, scale = quantize_all(x, self.layout.act, self.input_scale)
        else:
            whole, scale = quantize_tokens(x, self.layout.act)
        if self._whole_numbers(x):
            codes = (unpack(self.packed, 8, self.layout.codes) ^ 128).view(torch.int8)
            flat = whole.flatten(0, -2).to(torch.int8)
            y = torch._int_mm(flat, codes.T).to(x.dtype)
            return y.unflatten(0, x.shape[:-1]) * scale * self.scale.to(x.dtype).T
        return functional.linear(whole, self._plain(x.dtype)) * scale

    def _whole_numbers(self, x: Tensor) -> bool:
        """Whether the product can be made in int8: the sums are then exact."""
        layout = self.layout
        plain = layout.kind == "int" and layout.bits == 8 and not layout.zero
        return plain and layout.groups == 1 and x.dtype == torch.float32 and not x.is_cuda

    def extra_repr(self) -> str:
        """As ``nn.Linear``, with the layout."""
        return f"{self.in_features}, {self.out_features}, {self.layout.name}"


def output(x: Tensor, tensors: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """What a packed layer without bias makes of tokens (n, columns)."""
    made = PackedLinear(layout, None)
    made.load_state_dict(dict(tensors), strict=False, assign=True)
    return made(x)


def linear_of(layout: Layout, tensors: Mapping[str, Tensor], plain: nn.Linear) -> PackedLinear:
    """A packed layer that takes the place of ``plain``: its bias, on its device."""
    made = PackedLinear(layout, plain.bias)
    state = {name: tensor.to(plain.weight.device) for name, tensor in tensors.items()}
    made.load_state_dict(state, strict=False, assign=True)
    return made.eval()
