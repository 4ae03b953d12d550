"""Multistep solvers with momentum: fewer artefacts at few steps and large guidance scales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.methods.solvers import Denoise, Solver, Step, transfer


@method(
    paper="arXiv:2307.11118",
    year=2023,
    title="Diffusion Sampling with Momentum for Mitigating Divergence Artifacts",
    authors="Wizadwongsa, Chinchuthakun, Khungurn, Raj, Suwajanakorn",
)
class Ghvb(Solver):
    """Adams-Bashforth steps on a slope with momentum: generalised heavy ball (GHVB) and HB.

    ``m <- (1 - beta) m + beta slope``, then a step along the combination of the last ``order`` of
    these that keeps the order (GHVB); ``hb`` puts the momentum after the combination instead, which
    stays stable longest and is of order 1. The momentum starts as the first slope. ``beta = 1``
    is plain Adams-Bashforth, known as PLMS. The slope is the velocity over t on a flow, and eps
    over sigma / alpha on a variance-preserving path. As published, the coefficients are those of
    equal steps. "GHVB 2.7" of the paper is ``order=3,beta=0.7``.
    """

    order: int = param(2, "number of slopes that a step combines", ge=1, le=5)
    beta: float = param(0.8, "weight of the newest slope; 1 = no momentum", gt=0, le=1)
    form: str = param("ghvb", "where the momentum is: in the slopes or after them", choices=("ghvb", "hb"))

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """One network call a step."""
        total = len(times) - 1
        slopes: list[Array] = []  # newest first
        momentum: Array = None
        for i, (t, s) in enumerate(pairwise(times)):
            p = denoise(x, t)
            if not isinstance(p.path, Flow) and p.path.alpha(t) <= 0:
                x = transfer(p, s)  # sigma / alpha is infinite, and so the slope tells nothing
            else:
                along = _slope(p)
                if self.form == "ghvb":
                    along = momentum = self._blend(momentum, along)
                slopes = [along, *slopes][: self.order]
                along = combine_slopes(slopes, self.beta if self.form == "ghvb" else 1.0)
                if self.form == "hb":
                    along = momentum = self._blend(momentum, along)
                x = _along(p, along, s)
            yield Step(i, total, s, x, p)

    def _blend(self, momentum: Array, slope: Array) -> Array:
        if momentum is None or self.beta == 1:
            return slope
        return (1 - self.beta) * momentum + self.beta * slope


def combine_slopes(slopes: Sequence[Array], b: float) -> Array:
    """The combination of the newest ``k <= 5`` slopes that gives order ``k`` under damping ``b``.

    Wizadwongsa et al. 2023; Adams-Bashforth for ``b = 1``.
    """
    total = None
    for weight, slope in zip(slope_weights(len(slopes), b), slopes, strict=True):
        total = weight * slope if total is None else total + weight * slope
    return total


def slope_weights(order: int, b: float) -> tuple[float, ...]:
    """Weights of the slopes, newest first; they sum to 1."""
    tables: dict[int, tuple[float, ...]] = {
        1: (1.0,),
        2: ((2 + b) / 2, -(2 - b) / 2),
        3: ((18 + 5 * b) / 12, -(24 - 8 * b) / 12, (6 - b) / 12),
        4: ((46 + 9 * b) / 24, -(78 - 19 * b) / 24, (42 - 5 * b) / 24, -(10 - b) / 24),
        5: (
            (1650 + 251 * b) / 720,
            -(3420 - 646 * b) / 720,
            (2880 - 264 * b) / 720,
            -(1380 - 106 * b) / 720,
            (270 - 19 * b) / 720,
        ),
    }
    return (1.0,) if order == 1 else tuple(weight / b for weight in tables[order])


def _slope(p: Prediction) -> Array:
    return p.velocity if isinstance(p.path, Flow) else p.eps


def _along(p: Prediction, slope: Array, s: float) -> Array:
    """Latents at ``s`` along a slope from where ``p`` was made; ``transfer`` for its own slope."""
    path, t = p.path, p.t
    if isinstance(path, Flow):
        return p.x + (s - t) * slope
    keep = path.alpha(s) / path.alpha(t)
    return keep * p.x + (path.sigma(s) - keep * path.sigma(t)) * slope
