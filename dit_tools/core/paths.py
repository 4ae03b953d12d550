"""Noise paths ``x_t = alpha(t) x_0 + sigma(t) noise``, with ``t`` in [0, 1] and 1 = noise.

This is the one place that states the time convention. Sampling runs from ``t = 1`` to ``t = 0``.
``Flow`` is the straight path of flow matching; ``VP`` a discrete variance-preserving process whose
step ``i`` of ``N`` lies at ``t = (i + 1) / N``, so that ``t = 0`` is the clean image.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from dit_tools.core.arrays import Array, convert_like


class Path(Protocol):
    """What solvers, schedules and predictions need to know of a noise path."""

    def alpha(self, t: float) -> float:
        """Scale of the data at time ``t``."""
        ...

    def sigma(self, t: float) -> float:
        """Scale of the noise at time ``t``."""
        ...

    def time(self, log_snr: float) -> float:
        """The ``t`` at which ``log(alpha / sigma)`` has this value (clipped to [0, 1])."""
        ...


def scales(path: Path, t: Any, x: Array) -> tuple[Any, Any]:
    """``alpha(t)`` and ``sigma(t)`` to multiply a batch ``x`` (B, ...) with.

    Two numbers for one time; for times (B,) of every sample, arrays (B, 1, ..., 1) of ``x``'s kind.
    """
    if getattr(t, "ndim", 0) == 0:
        return path.alpha(t), path.sigma(t)
    shape = (-1, *(1,) * (x.ndim - 1))
    if isinstance(path, Flow):
        return (1.0 - t).reshape(shape), t.reshape(shape)
    import numpy as np

    times = t.tolist()
    alpha, sigma = (np.array([scale(each) for each in times]) for scale in (path.alpha, path.sigma))
    return convert_like(alpha, x).reshape(shape), convert_like(sigma, x).reshape(shape)


def log_snr(path: Path, t: float) -> float:
    """``lambda(t) = log(alpha / sigma)``; infinite on clean data, minus infinite at pure noise."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    if sigma <= 0:
        return math.inf
    return math.log(alpha / sigma) if alpha > 0 else -math.inf


@dataclass(frozen=True)
class Flow:
    """Flow matching: ``alpha = 1 - t``, ``sigma = t`` (Lipman et al. 2022, Liu et al. 2022)."""

    def alpha(self, t: float) -> float:
        """``1 - t``."""
        return 1.0 - t

    def sigma(self, t: float) -> float:
        """``t``."""
        return t

    def time(self, log_snr: float) -> float:
        """``1 / (1 + exp(lambda))``."""
        return 1.0 / (1.0 + math.exp(min(max(log_snr, -700.0), 700.0)))


@dataclass(frozen=True)
class VP:
    """Discrete variance-preserving diffusion with the table ``alphas_cumprod`` of its N steps.

    Between steps the log signal-to-noise ratio is interpolated linearly. ``final`` is the value of
    ``alphas_cumprod`` at ``t = 0``: 1, or the table's first entry (``set_alpha_to_one=False``).
    """

    alphas_cumprod: tuple[float, ...]
    final: float = 1.0

    def index(self, t: float) -> float:
        """Position in the table: ``t N - 1``, from -1 (clean) to N - 1 (noise)."""
        return t * len(self.alphas_cumprod) - 1.0

    def at_index(self, index: float) -> float:
        """The time of a table position, the inverse of ``index``."""
        return (index + 1.0) / len(self.alphas_cumprod)

    def _cumprod(self, t: float) -> float:
        table, position = self.alphas_cumprod, self.index(t)
        nearest = round(position)
        if abs(position - nearest) < 1e-6:  # t was made from an integer step
            return self.final if nearest < 0 else table[min(nearest, len(table) - 1)]
        low = math.floor(position)
        if low < 0:
            return self.final + (position + 1.0) * (table[0] - self.final)
        if low + 1 >= len(table):
            return table[-1]
        part = position - low
        value = (1 - part) * _logit(table[low]) + part * _logit(table[low + 1])
        return 1.0 / (1.0 + math.exp(-value))

    def alpha(self, t: float) -> float:
        """``sqrt(alphas_cumprod)``."""
        return math.sqrt(self._cumprod(t))

    def sigma(self, t: float) -> float:
        """``sqrt(1 - alphas_cumprod)``."""
        return math.sqrt(max(1.0 - self._cumprod(t), 0.0))

    @cached_property
    def _falling(self) -> Sequence[float]:
        return [-_logit(value) / 2 for value in self.alphas_cumprod]  # minus log-SNR, rising

    def time(self, log_snr: float) -> float:
        """Inverse of the log signal-to-noise ratio by interpolation in the table."""
        rising, wanted = self._falling, -log_snr
        if wanted >= rising[-1]:
            return 1.0
        if wanted <= rising[0]:
            if self.final < 1.0:
                return self.at_index(0.0)
            cumprod = 1.0 / (1.0 + math.exp(-2 * min(log_snr, 350.0)))
            return self.at_index((1.0 - cumprod) / (1.0 - self.alphas_cumprod[0]) - 1.0)
        high = bisect.bisect_left(rising, wanted)
        part = (wanted - rising[high - 1]) / (rising[high] - rising[high - 1])
        return self.at_index(high - 1 + part)


def _logit(p: float) -> float:
    p = min(max(p, 1e-12), 1.0 - 1e-12)  # a table with zero terminal SNR ends at 0
    return math.log(p / (1.0 - p))


@dataclass(frozen=True)
class ModelInfo:
    """What a run is about: the path, the number of image tokens, the scheduler's config.

    ``scheduler`` is the model's ``scheduler_config.json``; only ``schedules/native.py`` and
    ``solvers/diffusers.py`` read it. ``passes_sigmas`` tells that the model's pipeline hands
    ``linspace(1, 1/steps, steps)`` to its scheduler (Flux, Lumina2, Qwen-Image, Z-Image) instead
    of leaving the times to it (SD3, Sana, PixArt).
    """

    path: Path
    tokens: int
    scheduler: Mapping[str, Any]
    passes_sigmas: bool = False

    @property
    def mu(self) -> float:
        """Log of the resolution-dependent time shift, linear in the number of image tokens.

        Esser et al. 2024 (arXiv:2403.03206, Sec. 5.3.2) in the form that Flux introduced.
        """
        c = self.scheduler
        few, many = c.get("base_image_seq_len", 256), c.get("max_image_seq_len", 4096)
        low, high = c.get("base_shift", 0.5), c.get("max_shift", 1.15)
        slope = (high - low) / (many - few)
        return self.tokens * slope + (low - slope * few)
