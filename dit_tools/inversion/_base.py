"""The verb of the room, what it gives, and the step along a path in either direction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Flow, Path
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo
from dit_tools.solvers._base import Denoise, Solver

__all__ = ["LEAST_SIGNAL", "Denoise", "Inversion", "Inverted", "moved", "relate"]

LEAST_SIGNAL = 0.02
"""Below this alpha, clean data is a division by almost nothing; t = 0.98 on a flow."""


@dataclass(frozen=True)
class Inverted:
    """Where clean latents come from: ``noise`` (B, C, h, w) at the first time, and ``state``.

    ``state`` holds what the way back needs besides, by name; empty for one-latent methods.
    """

    noise: Array
    state: Mapping[str, Array] = field(default_factory=dict)


class Inversion(ABC):
    """A rule for going from data to noise, and the solver for the way back.

    ``rows`` is 2 where the way back runs the source beside every edit, as first row of the batch.
    ``exact`` promises the round trip up to rounding, whatever the network says. ``guided`` tells
    that both ways are made for one and the same guidance, which must be there.
    """

    info: ClassVar[MethodInfo]
    rows: ClassVar[int] = 1
    exact: ClassVar[bool] = False
    guided: ClassVar[bool] = False
    carries: ClassVar[tuple[str, ...]] = ()  # names of the arrays in ``state``

    def usable(self, times: Sequence[float], path: Path) -> tuple[float, ...]:
        """The times that the method can run over; most can run over all."""
        return tuple(times)

    @abstractmethod
    def invert(
        self, denoise: Denoise, x0: Array, times: Sequence[float], noise: Any = None
    ) -> Inverted:
        """Latents at ``times[0]`` from clean ``x0`` (B, C, h, w).

        ``noise`` is a stream (``noise.fresh() -> array like x0``), for stochastic methods only.
        """

    @abstractmethod
    def back(self, state: Mapping[str, Array]) -> Solver:
        """The solver that leads from ``Inverted.noise`` to the data again, over the same times."""


def relate(path: Path, t: float, s: float) -> tuple[float, float]:
    """``a, b`` of ``x_s = a x_t + b eps`` at fixed clean data: DDIM in either direction."""
    a = path.alpha(s) / path.alpha(t)
    return a, path.sigma(s) - a * path.sigma(t)


def moved(p: Prediction, x: Array, t: float, s: float) -> Array:
    """``x`` at time ``t`` taken to time ``s`` along the slope of ``p``, wherever that was made.

    The slope is the velocity over t on a flow, else eps over sigma / alpha.
    """
    if isinstance(p.path, Flow):
        return x + (s - t) * p.velocity
    a, b = relate(p.path, t, s)
    return a * x + b * p.eps


def capped(times: Sequence[float], path: Path, least: float = LEAST_SIGNAL) -> tuple[float, ...]:
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
