"""Changes of a layer's weight that act next to it, so that half precision loses nothing of them.

A layer with weight W and the changes dW_i gives ``W x + sum_i dW_i x``, each at its strength:

- ``LowRank``: ``s B A`` (LoRA, Hu et al. 2021, arXiv:2106.09685).
- ``Hadamard``: ``s (A1 B1) * (A2 B2)`` (LoHa, Hyeon-Woo et al. 2021, arXiv:2108.06098).
- ``Kronecker``: ``s W1 (x) W2`` (LoKr, Yeh et al. 2023, arXiv:2309.14859).
- ``Dense``: ``s D``.

With magnitudes m (DoRA, Liu et al. 2024, arXiv:2402.09353) W becomes ``m (W + dW) / ||W + dW||``, the
norm per output row, or per input column where m has the shape (1, inputs).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NAME = "dit_weight_changes"


class Change(nn.Module):
    """One change of a weight; its strength is folded into ``scale``."""

    magnitude: Tensor | None
    bias: Tensor | None

    def __init__(self, scale: float, magnitude: Tensor | None = None, bias: Tensor | None = None):
        super().__init__()
        self.scale = scale
        self.register_buffer("magnitude", magnitude, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self._factor: Tensor | None = None

    def weight(self) -> Tensor:
        """The change as a matrix or kernel, float32."""
        raise NotImplementedError

    def added(self, layer: nn.Module, x: Tensor) -> Tensor:
        """What the change alone makes of ``x``."""
        return apply_weight(layer, x, self.weight())

    def forward(self, layer: nn.Module, x: Tensor) -> Tensor:
        """What is added to the layer's output, biases included."""
        made = self.added(layer, x) if self.magnitude is None else self._decomposed(layer, x)
        if self.bias is not None:
            bias = self.bias.to(made.dtype)
            made = made + (bias.reshape(-1, 1, 1) if isinstance(layer, nn.Conv2d) else bias)
        return made

    def _decomposed(self, layer: nn.Module, x: Tensor) -> Tensor:
        """``m (W + dW) / ||W + dW|| x - W x``."""
        weight: Any = layer.weight
        if self._factor is None or self._factor.device != x.device:
            self._factor = self._magnitudes(weight.detach().float())
        factor, columns = self._factor, self.magnitude is not None and self.magnitude.ndim == 2
        whole = apply_weight(layer, x, weight)
        if columns:
            x = x * factor
            return apply_weight(layer, x, weight) - whole + self.added(layer, x)
        factor = factor.reshape(-1, 1, 1) if whole.ndim == 4 else factor
        return (factor - 1) * whole + factor * self.added(layer, x)

    def _magnitudes(self, weight: Tensor) -> Tensor:
        assert self.magnitude is not None
        total = weight + self.weight().reshape(weight.shape)
        if self.magnitude.ndim == 2:  # (1, inputs)
            return self.magnitude.float()[0] / torch.linalg.norm(total, dim=0)
        return self.magnitude.float() / torch.linalg.norm(total.flatten(1), dim=1)


class LowRank(Change):
    """``scale B A``; A is (rank, inputs) or a kernel, B (outputs, rank)."""

    def __init__(self, down: Tensor, up: Tensor, scale: float, **more: Tensor | None):
        super().__init__(scale, **more)
        self.down, self.up = nn.Parameter(down, False), nn.Parameter(up, False)

    def weight(self) -> Tensor:
        """``scale B A``."""
        up, down = self.up.float().flatten(1), self.down.float()
        return self.scale * (up @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])

    def added(self, layer: nn.Module, x: Tensor) -> Tensor:
        """``scale B (A x)``."""
        low = apply_weight(layer, x, self.down)
        if isinstance(layer, nn.Conv2d):
            return functional.conv2d(low, self.up.reshape(*self.up.shape[:2], 1, 1)) * self.scale
        return functional.linear(low, self.up) * self.scale


class Hadamard(Change):
    """``scale (a1 b1) * (a2 b2)``; a are (outputs, rank), b (rank, inputs)."""

    def __init__(self, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, scale: float, **more: Tensor | None):
        super().__init__(scale, **more)
        self.a1, self.b1, self.a2, self.b2 = (nn.Parameter(x, False) for x in (a1, b1, a2, b2))

    def weight(self) -> Tensor:
        """``scale (a1 b1) * (a2 b2)``."""
        return self.scale * (self.a1.float() @ self.b1.float()) * (self.a2.float() @ self.b2.float())


class Kronecker(Change):
    """``scale first (x) second``; (o1, i1) and (o2, i2) for a weight (o1 o2, i1 i2)."""

    def __init__(self, first: Tensor, second: Tensor, scale: float, **more: Tensor | None):
        super().__init__(scale, **more)
        self.first, self.second = nn.Parameter(first, False), nn.Parameter(second, False)

    def weight(self) -> Tensor:
        """``scale first (x) second``."""
        first = self.first.float().reshape(*self.first.shape, *(1,) * (self.second.ndim - 2))
        return self.scale * torch.kron(first, self.second.float())

    def added(self, layer: nn.Module, x: Tensor) -> Tensor:
        """``scale first X second^T`` of every token as a matrix X (i1, i2)."""
        if isinstance(layer, nn.Conv2d):
            return super().added(layer, x)
        rows = x.unflatten(-1, (self.first.shape[1], self.second.shape[1]))
        return self.scale * (self.first @ (rows @ self.second.T)).flatten(-2)


class Dense(Change):
    """``scale D``."""

    def __init__(self, difference: Tensor | None, scale: float, **more: Tensor | None):
        super().__init__(scale, **more)
        self.difference = None if difference is None else nn.Parameter(difference, False)

    def weight(self) -> Tensor:
        """``scale D``."""
        assert self.difference is not None
        return self.scale * self.difference.float()

    def added(self, layer: nn.Module, x: Tensor) -> Tensor:
        """``scale D x``; nothing where only a bias changes."""
        return x.new_zeros(()) if self.difference is None else super().added(layer, x)


class Changes(nn.Module):
    """All changes of one layer, hooked to it; part of it, so that they go where it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList()

    def hook(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook: the output with what the changes add, in the output's type."""
        made = output
        for change in self.each:
            x = inputs[0].to(next(change.parameters(), output).dtype)
            made = made + change(layer, x).to(output.dtype)
        return made


def apply_weight(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """``weight`` in place of the layer's, without bias."""
    weight = weight.to(x.dtype)
    if isinstance(layer, nn.Conv2d):
        kernel = weight if weight.ndim == 4 else weight.reshape(*weight.shape[:1], *layer.weight.shape[1:])
        return functional.conv2d(x, kernel, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return functional.linear(x, weight.flatten(1))


def attach(layer: nn.Module, change: Change) -> None:
    """Let a layer be changed; several changes of one layer add up."""
    changes = getattr(layer, NAME, None)
    if changes is None:
        changes = Changes()
        layer.add_module(NAME, changes)
        layer.register_forward_hook(changes.hook)
    own = next((p for p in layer.parameters() if p.is_floating_point()), None)
    kind = torch.float32 if own is None else own.dtype
    for tensor in change.parameters():  # as wide as the wider of file and layer
        tensor.data = tensor.data.to(torch.promote_types(tensor.dtype, kind))
    changes.each.append(change.requires_grad_(False).to(None if own is None else own.device))


def rank_scale(alpha: float | None, rank: int, root: bool = False) -> float:
    """``alpha / rank``, with ``root`` ``alpha / sqrt(rank)`` (Kalajdzievski 2023, arXiv:2312.03732); 1 for None."""
    return 1.0 if alpha is None else alpha / (math.sqrt(rank) if root else rank)
