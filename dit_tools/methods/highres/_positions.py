"""Helpers: methods that rescale positions, as one formula for the frequencies of an axis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from dit_tools.core.run import RunState
from dit_tools.methods.highres import HighRes

Frequencies = list[float]
"""Angle of each pair of channels per step of an axis: ``base^(-2 j / dim)`` as trained."""


def trained_frequencies(dim: int, base: float) -> Frequencies:
    """The trained frequencies of an axis with ``dim`` channels."""
    return [base ** (-2 * j / dim) for j in range(dim // 2)]


def interpolate_frequencies(dim: int, base: float, scale: float) -> Frequencies:
    """Position interpolation: all frequencies divided by ``scale``."""
    return [frequency / scale for frequency in trained_frequencies(dim, base)]


def ntk(dim: int, base: float, scale: float) -> Frequencies:
    """``base scale^(dim / (dim - 2))``: the highest frequency stays, the lowest is divided."""
    return trained_frequencies(dim, base * scale ** (dim / (dim - 2))) if dim > 2 else trained_frequencies(dim, base)


class Positions(HighRes):
    """Base of methods that rescale positions; ``scale`` None takes the size's own ratio per axis.

    Subclasses give ``frequencies``; nothing is hooked where both scales are 1.
    """

    scale: float | None
    proportional: bool

    def frequencies(self, dim: int, base: float, scale: float, native: int, t: float) -> Frequencies:
        """Frequencies of one axis of the image at time ``t`` (1 = noise).

        ``scale``: tokens of the axis over ``native``, those that the model was made for.
        """
        raise NotImplementedError

    def length(self, scale: float) -> float:
        """What rotated queries and keys are multiplied by."""
        return 1.0

    def scales(self, run: RunState) -> tuple[float, float]:
        """Of rows and columns, at least 1."""
        if self.scale is not None:
            return self.scale, self.scale
        rows, columns = (max(n / m, 1.0) for n, m in zip(run.grid, run.native, strict=True))
        return rows, columns

    def attach(self, network: Any, run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError for a network without positions that can be rescaled."""
        scales = self.scales(run)
        return nullcontext() if scales == (1.0, 1.0) else self._attached(network, run, scales)

    @contextmanager
    def _attached(self, network: Any, run: RunState, scales: tuple[float, float]) -> Iterator[None]:
        from dit_tools.nn.positions import Axis, rescale_positions, sharpen_attention

        def axis(which: int) -> Axis:
            scale, native = scales[which], run.native[which]
            return lambda dim, base: self.frequencies(dim, base, scale, native, run.t)

        option = f"--highres {self.info.name}"
        length = self.length(max(scales))
        axes = (axis(0), axis(1))
        factor = attention_factor(run) if self.proportional else 1.0
        with ExitStack() as stack:
            stack.enter_context(
                rescale_positions(network.module, network.positions, run.grid, run.native, axes, length, option)
            )
            if factor != 1:
                stack.enter_context(sharpen_attention(network.blocks(), run, factor, option))
            yield


def attention_factor(run: RunState) -> float:
    """``sqrt(log N / log N_native)`` for image tokens: keeps the entropy of attention."""
    now, native = (math.prod(grid) for grid in (run.grid, run.native))
    return math.sqrt(math.log(max(now, native)) / math.log(native)) if native > 1 else 1.0
