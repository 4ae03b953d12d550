"""Steps along a noise path: what solvers, inversions, compositions and edits share.

Everything here is arithmetic on latents (B, C, [F,] H, W), numpy or torch alike, at times in [0, 1]
where 1 is noise (``core.paths``).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Flow, ModelInfo, Path, log_snr
from dit_tools.core.prediction import Prediction

Denoise = Callable[[Array, float], Prediction]


@dataclass(frozen=True)
class Step:
    """The state after step ``index`` of ``total``: latents ``x`` at time ``t``.

    ``prediction`` is the last guided prediction, whose ``.x0`` makes previews.
    """

    index: int
    total: int
    t: float
    x: Array
    prediction: Prediction


@dataclass(frozen=True)
class Inverted:
    """Where clean latents come from: ``noise`` (B, C, h, w) at the first time, and ``state``.

    ``state`` holds what the way back needs besides, by name; empty for one-latent methods.
    """

    noise: Array
    state: Mapping[str, Array] = field(default_factory=lambda: dict[str, Array]())


class Stepper(ABC):
    """A rule for stepping from noise to data: a solver, or the way back of an inversion."""

    def bind(self, target: ModelInfo) -> Stepper:
        """The same rule for one run; rules that must know the model's scheduler override this."""
        return self

    def calls(self, steps: int) -> int:
        """How many guided predictions ``steps`` steps ask for."""
        return steps

    @abstractmethod
    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """Yield a ``Step`` for every interval of ``times``.

        ``x`` holds latents (B, C, [F,] H, W) at ``times[0]``. ``noise`` is the run's noise stream
        (``noise.fresh() -> array like x``), for stochastic solvers only.
        """


def transfer(p: Prediction, s: float) -> Array:
    """Latents at time ``s`` when x0 and noise stay as predicted: DDIM, and Euler on a flow."""
    if isinstance(p.path, Flow):
        return p.x + (s - p.t) * p.velocity
    return p.path.alpha(s) * p.x0 + p.path.sigma(s) * p.eps


def advance(path: Path, x: Array, data: Array, t: float, s: float) -> Array:
    """Latents at ``s`` from ``x`` at ``t`` for clean data that stays as predicted.

    Exact in log(alpha / sigma), finite where alpha or sigma is 0 (Lu et al. 2022,
    arXiv:2211.01095, Eq. 8).
    """
    keep = path.sigma(s) / path.sigma(t)
    return keep * x + (path.alpha(s) - path.alpha(t) * keep) * data


def posterior_std(path: Path, t: float, s: float) -> float:
    """Standard deviation of ``x_s`` given ``x_t`` and the clean data."""
    if path.sigma(s) <= 0:
        return 0.0
    ratio = math.exp(2 * (log_snr(path, t) - log_snr(path, s)))
    return path.sigma(s) * math.sqrt(max(1.0 - ratio, 0.0))


LEAST_SIGNAL = 0.02
"""Below this alpha, clean data is a division by almost nothing; t = 0.98 on a flow."""


def transfer_coefficients(path: Path, t: float, s: float) -> tuple[float, float]:
    """``a, b`` of ``x_s = a x_t + b eps`` at fixed clean data: DDIM in either direction."""
    a = path.alpha(s) / path.alpha(t)
    return a, path.sigma(s) - a * path.sigma(t)


def ode_step(p: Prediction, x: Array, t: float, s: float) -> Array:
    """``x`` at time ``t`` taken to time ``s`` along the slope of ``p``, wherever that was made.

    The slope is the velocity over t on a flow, else eps over sigma / alpha.
    """
    if isinstance(p.path, Flow):
        return x + (s - t) * p.velocity
    a, b = transfer_coefficients(p.path, t, s)
    return a * x + b * p.eps


def cap_times(times: Sequence[float], path: Path, least: float = LEAST_SIGNAL) -> tuple[float, ...]:
    """``times`` whose first has at least ``least`` of the signal; later ones are kept or dropped.

    The cap is found by bisection, as paths have no inverse of alpha.
    """
    if path.alpha(times[0]) >= least:
        return tuple(times)
    low, high = 0.0, times[0]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if path.alpha(middle) >= least else (low, middle)
    return (low, *(t for t in times[1:] if t < low))
