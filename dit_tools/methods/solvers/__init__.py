"""Solvers: how one gets from noise to an image along the times (``--solver``).

Contract: ``steps(denoise, x, times, noise) -> Iterator[Step]``. A solver is a generator that owns
its loop: the caller pulls, so progress, previews, stopping and resuming need no callbacks.
``denoise(x, t) -> Prediction`` is guided already; solvers read ``.x0``, ``.eps`` or ``.velocity``
and the path on it, and never ask what the network predicted. Arrays are numpy or torch alike.

Example::

    @method(paper="...", title="...", year=2022)
    class Euler(Solver):
        \"\"\"...\"\"\"
        def steps(self, denoise, x, times, noise):
            for i, (t, s) in enumerate(pairwise(times)):
                p = denoise(x, t)
                x = transfer(p, s)
                yield Step(i, len(times) - 1, s, x, p)

A solver that makes more than one prediction a step says so in ``calls(steps)``; one that must know
the model's scheduler (``diffusers``) gets it before the run through ``bind(target)``.

Helpers: ``Step``, ``Denoise``, ``transfer`` and ``advance`` of ``dit_tools.core.steps``.
"""

from __future__ import annotations

from typing import ClassVar

from dit_tools.core.registry import MethodInfo
from dit_tools.core.steps import Denoise, Step, Stepper, advance, transfer

__all__ = ["Denoise", "Solver", "Step", "advance", "transfer"]


class Solver(Stepper):
    """A rule for stepping from noise to data along a timestep schedule."""

    info: ClassVar[MethodInfo]
    own_times: ClassVar[bool] = False  # it ignores the schedule and cannot start midway
