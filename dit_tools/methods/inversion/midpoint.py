"""The midpoint rule in both directions: second-order inversion of rectified flows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Denoise, Inverted, Step, Stepper, ode_step
from dit_tools.methods.inversion import Inversion


@method(
    paper="arXiv:2411.04746",
    year=2024,
    title="Taming Rectified Flow for Inversion and Editing",
    authors="Wang, Pu, Qi, Guo, Ma, Huang, Chen, Li, Shan",
)
class Midpoint(Inversion):
    """Second-order inversion: the slope is taken at the middle of the step (RF-Solver, FireFlow).

    RF-Stepper: ``x' = x + d v(x + d v(x, t) / 2, t + d / 2)``, error O(1 / steps^2), two calls.

    The paper's second-order Taylor step with a finite difference is this rule. reuse takes the
    slope of the last midpoint for the half step (FireFlow, Deng et al. 2024, arXiv:2412.07517):
    one call a step and one more. On a variance-preserving path the slope is that of x / alpha.
    """

    reuse: bool = param(False, "reuse the last midpoint's slope for the half step")

    def invert(self, denoise: Denoise, x0: Array, times: Sequence[float], noise: Any = None) -> Inverted:
        """Two network calls a step, or one and one more with ``reuse``."""
        *_, last = _walk(denoise, x0, tuple(reversed(times)), self.reuse)
        return Inverted(last[0])

    def back(self, state: Mapping[str, Array]) -> Stepper:
        """The same rule the other way."""
        return _Midpoint(self.reuse)


def _walk(denoise: Denoise, x: Array, times: Sequence[float], reuse: bool) -> Iterator[tuple[Array, Prediction]]:
    slope: Prediction | None = None
    for t, s in pairwise(times):
        if slope is None or not reuse:
            slope = denoise(x, t)
        middle = (t + s) / 2
        slope = denoise(ode_step(slope, x, t, middle), middle)
        x = ode_step(slope, x, t, s)
        yield x, slope


class _Midpoint(Stepper):
    def __init__(self, reuse: bool):
        self.reuse = reuse

    def calls(self, steps: int) -> int:
        return steps + 1 if self.reuse else 2 * steps

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        total = len(times) - 1
        for i, (x, p) in enumerate(_walk(denoise, x, times, self.reuse)):  # noqa: B020
            yield Step(i, total, times[i + 1], x, p)
