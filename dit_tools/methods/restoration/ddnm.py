"""DDNM: the part that the measurement determines is replaced at every step."""

from __future__ import annotations

from itertools import pairwise

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.methods.restoration import Problem, Restoration, renoised


@method(
    paper="arXiv:2212.00490",
    year=2023,
    title="Zero-Shot Image Restoration Using Denoising Diffusion Null-Space Model",
    authors="Wang, Yu, Zhang",
)
class Ddnm(Restoration):
    """``x0 <- H+ y + (I - H+ H) x0`` (Eq. 13), then an ordinary step with some fresh noise.

    What the measurement says is taken as it is, so it should be free of noise; only the null space
    is generated. The fresh noise lets early mistakes be forgotten.
    """

    eta: float = param(0.85, "share of fresh noise a step; 0 = none", ge=0, le=1)
    share: float = param(1.0, "share of the correction; 0 = plain sampling", ge=0, le=1)

    def restore(self, problem: Problem) -> Array:
        """One guided prediction a step."""
        x = problem.stream.fresh()
        for t, s in pairwise(problem.times):
            p = problem.denoise(x, t)
            x0 = problem.corrected(p.x0, self.share)
            x = renoised(problem.path, p, x0, t, s, self.eta, problem.stream.fresh)
        return x
