"""Steered diffusion: the measurement replaces its part, and each step is repeated to settle."""

from __future__ import annotations

from itertools import pairwise

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.methods.restoration import Problem, Restoration, renoised


@method(
    paper="arXiv:2310.00224",
    year=2023,
    title="Steered Diffusion: A Generalized Framework for Plug-and-Play Conditional Image Synthesis",
    authors="Nair, Cherian, Lohit, et al.",
)
class Steered(Restoration):
    """``x0 <- x0 - (U H x0 - U y)`` below ``start`` (U: back to full size), then a step with new noise.

    A step is made ``repeats`` times: after each but the last, noise takes the latents back to where
    the step began, and the model joins what was replaced with the rest. Hard replacement in very
    noisy latents fights the model, hence ``start``.
    """

    repeats: int = param(2, "times that each step is made", ge=1, le=20)
    start: float = param(0.9, "time from which on the measurement counts; 0 = never", ge=0, le=1)

    def restore(self, problem: Problem) -> Array:
        """``repeats`` guided predictions a step."""
        path, fresh = problem.path, problem.stream.fresh
        x = fresh()
        for t, s in pairwise(problem.times):
            steered = t <= self.start and self.start > 0
            for repeat in range(self.repeats if steered else 1):
                p = problem.denoise(x, t)
                x0 = problem.corrected(p.x0) if steered else p.x0
                lower = renoised(path, p, x0, t, s, 1.0, fresh)
                if repeat + 1 < self.repeats and steered and path.alpha(s) > 0:
                    keep = path.alpha(t) / path.alpha(s)
                    x = keep * lower + max(path.sigma(t) ** 2 - (keep * path.sigma(s)) ** 2, 0.0) ** 0.5 * fresh()
            x = lower
        return x
