"""The verb of the room, the step that it yields, and the first-order transfer along a path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Flow, Path, Target
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo

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


class Solver(ABC):
    """A rule for stepping from noise to data."""

    info: ClassVar[MethodInfo]
    own_times: ClassVar[bool] = False  # it ignores the schedule and cannot start midway

    def bind(self, target: Target) -> Solver:
        """The solver of one run, for those that must know the model's scheduler; else itself."""
        return self

    def calls(self, steps: int) -> int:
        """How many guided predictions ``steps`` steps ask for."""
        return steps

    @abstractmethod
    def steps(
        self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any
    ) -> Iterator[Step]:
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
