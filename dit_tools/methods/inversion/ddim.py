"""DDIM inversion, which is Euler's method run backwards on a flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Denoise, Inverted, Stepper, ode_step
from dit_tools.methods.inversion import Inversion


@method(paper="arXiv:2010.02502", year=2020, title="Denoising Diffusion Implicit Models", authors="Song, Meng, Ermon")
class DdimInversion(Inversion):
    """The sampler's steps backwards, with the slope at the wrong end of each: error O(1 / steps).

    One network call a step. With refine > 0 the slope is taken at the right end by fixed-point
    iterations (Pan et al. 2023, arXiv:2309.04907), which makes the step exact in the limit where
    they converge; each costs one more call. The way back is DDIM, Euler on a flow.
    """

    refine: int = param(0, "fixed-point iterations per step; 0 = plain inversion", ge=0, le=50)

    def invert(self, denoise: Denoise, x0: Array, times: Sequence[float], noise: Any = None) -> Inverted:
        """``1 + refine`` network calls a step."""
        return Inverted(self.trajectory(denoise, x0, times)[-1])

    def trajectory(self, denoise: Denoise, x0: Array, times: Sequence[float]) -> list[Array]:
        """Latents at every time, from ``x0`` at 0 to the first one."""
        x, passed = x0, [x0]
        for s, t in pairwise(reversed(times)):
            ahead = ode_step(denoise(x, s), x, s, t)
            for _ in range(self.refine):
                ahead = ode_step(denoise(ahead, t), x, s, t)
            x = ahead
            passed.append(x)
        return passed

    def back(self, state: Mapping[str, Array]) -> Stepper:
        """DDIM without noise."""
        return spec.parse("solvers", "ddim")
