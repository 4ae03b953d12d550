"""Lists of noise levels that several schedules are made of, in pure Python."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from dit_tools.core.paths import VP, Path, log_snr


def linspace(first: float, last: float, count: int) -> list[float]:
    """``count`` equally spaced values, both ends included; ``[first]`` when count is 1."""
    if count == 1:
        return [first]
    step = (last - first) / (count - 1)
    return [first + i * step for i in range(count - 1)] + [last]


def karras(high: float, low: float, count: int, rho: float = 7.0) -> list[float]:
    """Noise levels equally spaced in ``sigma^(1/rho)`` (Karras et al. 2022, Eq. 5)."""
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    return [(top + u * (bottom - top)) ** rho for u in linspace(0.0, 1.0, count)]


def exponential(high: float, low: float, count: int) -> list[float]:
    """Noise levels equally spaced in ``log sigma``."""
    return [math.exp(value) for value in linspace(math.log(high), math.log(low), count)]


def beta(high: float, low: float, count: int, a: float = 0.6, b: float = 0.6) -> list[float]:
    """Levels at equally spaced quantiles of Beta(a, b) (Lee et al. 2024, arXiv:2407.12173)."""
    shares = [beta_quantile(1.0 - u, a, b) for u in linspace(0.0, 1.0, count)]
    return [low + share * (high - low) for share in shares]


def shift(t: float, factor: float) -> float:
    """``factor t / (1 + (factor - 1) t)``: the flow time shift of Esser et al. 2024, Eq. 23."""
    return min(factor * t / (1 + (factor - 1) * t), 1.0)


def round_to_float32(values: Sequence[float]) -> list[float]:
    """The values rounded to single precision, in which diffusers keeps its times."""
    return list(array("f", values))


def beta_quantile(p: float, a: float, b: float) -> float:
    """The ``x`` with ``I_x(a, b) = p``, by bisection to the last bit. ``p`` is in [0, 1]."""
    if p <= 0.0 or p >= 1.0:
        return 0.0 if p <= 0.0 else 1.0
    if p > beta_cdf(0.5, a, b):  # bisect near 0, where floats are dense
        return 1.0 - _bisected(1.0 - p, b, a)
    return _bisected(p, a, b)


def _bisected(p: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if beta_cdf(middle, a, b) < p else (low, middle)
    return (low + high) / 2


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function ``I_x(a, b)`` by its continued fraction.

    DLMF 8.17.22, evaluated with Lentz's algorithm; ``x`` is in [0, 1], ``a`` and ``b`` positive.
    """
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast only on this side
        return 1.0 - beta_cdf(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x))
    return front / a / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    tiny = 1e-300
    value, c, d = 1.0, 1.0, 0.0
    for i in range(1, 1000):
        m = i // 2
        if i % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / (1.0 + term * d or tiny)
        c = 1.0 + term / c or tiny
        value *= c * d
        if abs(c * d - 1.0) < 1e-16:
            break
    return value


def flow_sigma(t: float) -> float:
    """``sigma / alpha`` of the flow time ``t``; infinite at 1."""
    return t / (1 - t) if t < 1 else math.inf


def clip_bounds(path: Path, high: float, low: float) -> tuple[float, float]:
    """``sigma / alpha`` bounds kept within the levels of a path's table, if it has one."""
    if not isinstance(path, VP):
        return high, low
    noisiest, cleanest = (math.exp(-log_snr(path, t)) for t in (1.0, path.at_index(0)))
    return min(high, noisiest), max(low, cleanest)


def on_path(path: Path, ratios: Sequence[float]) -> tuple[float, ...]:
    """Times at which ``sigma / alpha`` has these values, and 0 after them."""
    return (*(path.time(-math.log(ratio)) for ratio in ratios), 0.0)
