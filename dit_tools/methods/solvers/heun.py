"""Heun's method: an Euler step, corrected by the slope at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method
from dit_tools.methods.solvers import Denoise, Solver, Step, transfer


@method(
    paper="arXiv:2206.00364",
    year=2022,
    title="Elucidating the Design Space of Diffusion-Based Generative Models",
    authors="Karras, Aittala, Aila, Laine",
)
class Heun(Solver):
    """Heun steps, order 2, without added noise (Alg. 1); two network calls a step.

    On a flow the slope is the velocity over t; on a variance-preserving path it is eps over
    sigma / alpha, as in the paper. The step to sigma = 0 is an Euler step, and so is one from
    alpha = 0 on a variance-preserving path, where the slope is infinite.
    """

    def calls(self, steps: int) -> int:
        """Two a step, one in the last."""
        return 2 * steps - 1

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """Two network calls a step, one in the last."""
        total = len(times) - 1
        for i, (t, s) in enumerate(pairwise(times)):
            p = denoise(x, t)
            ahead = transfer(p, s)
            x = ahead if p.path.sigma(s) <= 0 else _corrected(p, denoise(ahead, s))
            yield Step(i, total, s, x, p)


def _corrected(p: Prediction, q: Prediction) -> Array:
    """The step from ``p.t`` to ``q.t`` with the mean of both slopes."""
    path, t, s = p.path, p.t, q.t
    if isinstance(path, Flow):
        return p.x + (s - t) / 2 * (p.velocity + q.velocity)
    if path.alpha(t) <= 0:
        return q.x
    keep = path.alpha(s) / path.alpha(t)
    return keep * p.x + (path.sigma(s) - keep * path.sigma(t)) / 2 * (p.eps + q.eps)
