"""Other positions for a diffusers transformer while a context lasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dit_tools.core.blocks import PositionSpec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.run import RunState
from dit_tools.nn.attention_control import AttentionCall, control_attention
from dit_tools.nn.hooks import around_forward

Axis = Callable[[int, float], Sequence[float]]
"""``axis(channels, base)``: the frequencies of an axis, one per pair of channels."""


@dataclass(frozen=True)
class Rescaling:
    """Frequencies of rows and columns of a ``grid`` for a model made for ``native``.

    ``length``: what rotary factors are multiplied by.
    """

    grid: tuple[int, int]
    native: tuple[int, int]
    axes: tuple[Axis, Axis]
    length: float

    def angles(self, which: int, positions: Tensor, dim: int, base: float) -> Tensor:
        """Angles (n, dim / 2) of an axis (0 rows, 1 columns) in float64."""
        frequencies = self.axes[which](dim, base)
        made = torch.tensor(frequencies, dtype=torch.float64, device=positions.device)
        return torch.outer(positions.double(), made)


def rescale_positions(
    transformer: Any,
    positions: PositionSpec | None,
    grid: tuple[int, int],
    native: tuple[int, int],
    axes: tuple[Axis, Axis],
    length: float,
    option: str,
) -> AbstractContextManager[None]:
    """Inside the context positions of image tokens have the frequencies of ``axes``.

    ``positions`` is what the family says of them. Raises UnsupportedError where that is nothing.
    """
    if positions is None:
        kind = type(transformer).__name__
        raise UnsupportedError(f"{option}: {kind} has no positions that can be rescaled", "leave it out")
    module = getattr(transformer, positions.module) if positions.module else transformer
    how = Rescaling(grid, native, axes, length)

    def stand_in(_: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return positions.rescale(how, transformer, compute, args, kwargs)

    return around_forward([module], stand_in, "dit_positions")


def sharpen_attention(blocks: Sequence[Any], run: RunState, factor: float, option: str) -> AbstractContextManager[None]:
    """Inside the context attention logits over image tokens are multiplied by ``factor``."""

    def control(call: AttentionCall) -> Tensor:
        return call.product(call.q * factor, call.k, call.v, call.mask)

    return control_attention(blocks, lambda: run.grid[0] * run.grid[1], control, option, name="dit_sharper_attention")


def frequencies(dim: int, base: float, device: Any) -> Tensor:
    """The frequencies ``base ** (-2 i / dim)`` of a pair of channels each, (dim / 2,), float64."""
    steps = torch.arange(0, dim, 2, dtype=torch.float64, device=device)
    return 1.0 / base ** (steps / dim)


def unit_complex(angles: Tensor, dtype: torch.dtype) -> Tensor:
    """Complex numbers of length 1 with these angles."""
    return torch.polar(torch.ones_like(angles), angles).to(dtype)
