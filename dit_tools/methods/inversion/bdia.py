"""BDIA: a two-step recurrence over time that runs the same both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Denoise, Inverted, Step, Stepper, ode_step
from dit_tools.methods.inversion import Inversion

GROWTH = 1e4  # of rounding errors, over a whole inversion


@method(
    paper="arXiv:2307.10829",
    year=2023,
    title="Exact Diffusion Inversion via Bi-directional Integration Approximation",
    authors="Zhang, Lewis, Kleijn",
)
class Bdia(Inversion):
    """Exact up to rounding at one network call a step: ``z_s = gamma (z_u - B) + F`` (Eq. 18).

    u, t, s are three times in a row, F and B the DDIM steps from t to s and from t back to u with
    one and the same prediction; solved for ``z_u`` it is the inversion. The two latents at the
    noisy end are kept. Rounding grows by 1 / gamma a step, so gamma below 0.9 suits few steps.
    """

    exact = True
    carries = ("next",)

    gamma: float = param(0.96, "weight of the step back; 1 = leapfrog", gt=0, le=1)

    def invert(self, denoise: Denoise, x0: Array, times: Sequence[float], noise: Any = None) -> Inverted:
        """One network call a step. Raises UnsupportedError where rounding would take over."""
        self._check(len(times) - 1)
        rising = tuple(reversed(times))
        before, x = x0, ode_step(denoise(x0, rising[0]), x0, rising[0], rising[1])
        for s, t, u in zip(rising, rising[1:], rising[2:], strict=False):
            p = denoise(x, t)
            before, x = x, (before - ode_step(p, x, t, s)) / self.gamma + ode_step(p, x, t, u)
        return Inverted(x, {"next": before})

    def _check(self, steps: int) -> None:
        if self.gamma ** -(steps - 1) > GROWTH:
            least = min(GROWTH ** (-1 / max(steps - 1, 1)), 1.0)
            raise UnsupportedError(
                f"--inversion bdia:gamma={self.gamma:g}: rounding errors grow without bound over {steps} steps",
                f"use gamma of at least {least + 0.005:.2f}, or fewer steps",
            )

    def back(self, state: Mapping[str, Array]) -> Stepper:
        """The recurrence, from the two kept latents on."""
        return Recurrence(state["next"], self.gamma)


class Recurrence(Stepper):
    """The sampler of a pair: ``steps`` gets the latents at the first time, ``next`` the second's.

    The first step costs nothing, for both its ends are known.
    """

    def __init__(self, following: Array, gamma: float):
        self.following, self.gamma = following, gamma

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """One network call a step, but none in the first."""
        total, before, x = len(times) - 1, x, self.following
        if total == 1:
            yield Step(0, 1, times[1], x, denoise(x, times[1]))
            return
        for i, ((u, t), s) in enumerate(zip(pairwise(times), times[2:], strict=False)):
            p = denoise(x, t)
            if i == 0:
                yield Step(0, total, t, x, p)
            ahead, behind = ode_step(p, x, t, s), ode_step(p, x, t, u)
            before, x = x, self.gamma * (before - behind) + ahead
            yield Step(i + 1, total, s, x, p)
