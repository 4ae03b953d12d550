"""Euler's method on the probability-flow ODE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method
from dit_tools.methods.solvers import Denoise, Solver, Step, transfer


@method(
    paper="arXiv:2209.03003",
    year=2022,
    title="Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
    authors="Liu, Gong, Liu",
)
class Euler(Solver):
    """Euler steps, order 1: ``x_s = x_t + (s - t) v`` on a flow.

    On a variance-preserving path the step is taken in ``x / alpha`` over ``sigma / alpha``, where
    it is DDIM (Song et al. 2020, Eq. 13 and Sec. 4.3).
    """

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """One network call a step."""
        total = len(times) - 1
        for i, (t, s) in enumerate(pairwise(times)):
            p = denoise(x, t)
            x = transfer(p, s)
            yield Step(i, total, s, x, p)
