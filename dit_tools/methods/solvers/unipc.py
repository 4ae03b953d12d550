"""UniPC: a multistep predictor, corrected for free by the next prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Path, log_snr
from dit_tools.core.registry import method, param
from dit_tools.methods.solvers import Denoise, Solver, Step, advance

LOWEST = -13.802  # log-SNR at t = 1 - 1e-6 in single precision, where diffusers' flow mode starts


@dataclass(frozen=True)
class _Point:
    """The predicted clean data at a time, and its log signal-to-noise ratio."""

    t: float
    data: Array
    snr: float


@method(
    paper="arXiv:2302.04867",
    year=2023,
    title="UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
    authors="Zhao, Bai, Rao, Zhou, Lu",
)
class UniPC(Solver):
    """Predictor-corrector steps of order 1 to 3 (UniPC).

    UniP-p and UniC-p on the predicted clean data with B(h) = exp(-h) - 1, "bh2" (Alg. 1, 2).

    Predictor of order p and corrector of order p + 1, one network call a step. The step to
    sigma = 0 is of order 1. Log signal-to-noise ratios below -13.8 are raised to it, so that a
    flow may start at t = 1. Differs from the paper as diffusers does: UniP-2 and UniC-1 use the
    coefficient 1/2.
    """

    order: int = param(2, "order of the predictor; 3 suits unguided sampling", ge=1, le=3)
    lower_order_final: bool = param(True, "lower the order over the last steps")

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """One network call a step."""
        total = len(times) - 1
        points: list[_Point] = []  # newest last
        order, before = 0, x
        for i, s in enumerate(times[1:]):
            p = denoise(x, times[i])
            point = _Point(p.t, p.x0, max(log_snr(p.path, p.t), LOWEST))
            if points:
                x = _corrected(p.path, before, points, point, order)
            points = [*points, point][-self.order :]
            order = min(self.order, len(points))
            if self.lower_order_final:
                order = min(order, total - i)
            before = x
            x = _predicted(p.path, x, points, s, order)
            yield Step(i, total, s, x, p)


def _predicted(path: Path, x: Array, points: Sequence[_Point], s: float, order: int) -> Array:
    """UniP: from the newest point to time ``s``."""
    now = points[-1]
    h = log_snr(path, s) - now.snr
    if order == 1 or math.isinf(h):
        return advance(path, x, now.data, now.t, s)
    ratios, slopes = _differences(points, h, order)
    # The remaining unknown of order 2 is 1/2 up to O(h), as the authors' code has it.
    weights = [0.5] if order == 2 else _solve(*_system(ratios, h))
    return advance(path, x, _mixed(now.data, weights, slopes), now.t, s)


def _corrected(path: Path, x: Array, points: Sequence[_Point], new: _Point, order: int) -> Array:
    """UniC: the step from ``points[-1]`` to ``new`` again, now with the prediction at its end."""
    last = points[-1]
    h = new.snr - last.snr
    if h == 0:
        return x
    ratios, slopes = _differences(points, h, order)
    weights = [0.5] if order == 1 else _solve(*_system([*ratios, 1.0], h))
    slopes.append(new.data - last.data)
    return advance(path, x, _mixed(last.data, weights, slopes), last.t, new.t)


def _differences(points: Sequence[_Point], h: float, order: int) -> tuple[list[float], list[Array]]:
    """Relative places of earlier points in units of ``h``, and slopes of the data towards them."""
    now, earlier = points[-1], points[-order:-1][::-1]
    ratios = [(point.snr - now.snr) / h for point in earlier]
    slopes = [(p.data - now.data) / r for p, r in zip(earlier, ratios, strict=True)]
    return ratios, slopes


def _mixed(data: Array, weights: Sequence[float], slopes: Sequence[Array]) -> Array:
    for weight, slope in zip(weights, slopes, strict=True):
        data = data + weight * slope
    return data


def _system(ratios: Sequence[float], h: float) -> tuple[list[list[float]], list[float]]:
    """Vandermonde system of UniC and UniP: powers of ratios, ``k! phi_(k+1)(-h) h / B(h)``."""
    scale = math.expm1(-h)
    phi, factorial, rows, right = scale / -h - 1.0, 1.0, [], []
    for k in range(1, len(ratios) + 1):
        rows.append([ratio ** (k - 1) for ratio in ratios])
        right.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / -h - 1.0 / factorial
    return rows, right


def _solve(rows: list[list[float]], right: list[float]) -> list[float]:
    """Gaussian elimination with pivoting for systems of at most three unknowns."""
    n = len(right)
    table = [[*row, value] for row, value in zip(rows, right, strict=True)]
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(table[r][i]))
        table[i], table[pivot] = table[pivot], table[i]
        for r in range(n):
            if r != i:
                factor = table[r][i] / table[i][i]
                table[r] = [a - factor * b for a, b in zip(table[r], table[i], strict=True)]
    return [table[i][n] / table[i][i] for i in range(n)]
