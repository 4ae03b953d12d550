"""Compare rate-distortion curves: the Bjontegaard difference of rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dit_tools.core.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_OVERLAP = 0.3
"""Curves that share a smaller part of the anchor's quality range are not compared."""


def bd_rate(anchor: Sequence[tuple[float, float]], test: Sequence[tuple[float, float]]) -> float:
    """How many percent more bytes ``test`` needs than ``anchor`` at equal quality.

    The logarithm of the rate is interpolated over quality by a monotone cubic (Fritsch and
    Carlson) and averaged over the range of quality that both curves reach, as G. Bjontegaard
    proposed (ITU-T VCEG-M33) with the interpolation of later practice. For distances, of which
    less is better, pass their negative.

    Args:
        anchor: Pairs of rate (above 0, any unit) and quality (more is better), in any order.
        test: The same of the other codec.

    Returns:
        Percent; negative where ``test`` saves bytes.

    Raises:
        UsageError: Fewer than two points, or less than 30 % of the anchor's range is shared.
    """
    import numpy as np

    first, second = _curve(anchor), _curve(test)
    low = max(first[0][0], second[0][0])
    high = min(first[0][-1], second[0][-1])
    span = first[0][-1] - first[0][0]
    if span <= 0 or (high - low) / span < LEAST_OVERLAP:
        raise UsageError(
            f"the curves share only {max(0.0, high - low):.3g} of a quality range of {span:.3g}", "measure more rates"
        )
    grid = np.linspace(low, high, 2001)
    gap = _monotone(second, grid) - _monotone(first, grid)
    return float(np.expm1((gap[1:] + gap[:-1]).mean() / 2) * 100)


def _curve(points: Sequence[tuple[float, float]]) -> tuple[NDArray, NDArray]:
    import numpy as np

    best: dict[float, float] = {}
    for rate, quality in points:
        best[quality] = min(rate, best.get(quality, rate))
    if len(best) < 2:
        raise UsageError("a curve needs two points of different quality", "measure more rates")
    quality = np.array(sorted(best))
    return quality, np.log([best[q] for q in quality])


def _monotone(curve: tuple[NDArray, NDArray], at: NDArray) -> NDArray:
    """Piecewise cubic Hermite interpolation that keeps monotone data monotone."""
    import numpy as np

    x, y = curve
    width, slope = np.diff(x), np.diff(y) / np.diff(x)
    tangent = np.empty_like(y)
    if len(x) == 2:
        tangent[:] = slope[0]
    else:
        first, second = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
        same = slope[1:] * slope[:-1] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (first + second) / (first / slope[:-1] + second / slope[1:])
        tangent[1:-1] = np.where(same, mean, 0.0)
        tangent[0] = _end(width[0], width[1], slope[0], slope[1])
        tangent[-1] = _end(width[-1], width[-2], slope[-1], slope[-2])
    index = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h, t = width[index], (at - x[index]) / width[index]
    return (
        y[index] * (1 + 2 * t) * (1 - t) ** 2
        + h * tangent[index] * t * (1 - t) ** 2
        + y[index + 1] * t**2 * (3 - 2 * t)
        + h * tangent[index + 1] * t**2 * (t - 1)
    )


def _end(h0: float, h1: float, d0: float, d1: float) -> float:
    """The one-sided tangent at an end, limited to keep the shape."""
    tangent = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
    if tangent * d0 <= 0:
        return 0.0
    if d0 * d1 < 0 and abs(tangent) > abs(3 * d0):
        return 3 * d0
    return tangent
