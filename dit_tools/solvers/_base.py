"""The verb of the room, the step that it yields, and the first-order transfer along a path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Flow
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
