"""Denoising diffusion implicit models: from the predicted clean data straight to the next time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.steps import posterior_std
from dit_tools.methods.solvers import Denoise, Solver, Step, transfer


@method(paper="arXiv:2010.02502", year=2020, title="Denoising Diffusion Implicit Models", authors="Song, Meng, Ermon")
class Ddim(Solver):
    """DDIM steps, order 1: ``x_s = alpha_s x0 + sqrt(sigma_s^2 - d^2) eps + d z`` (Eq. 12).

    ``d = eta sigma_s sqrt(1 - exp(2 (lambda_t - lambda_s)))``, lambda = log(alpha / sigma), which
    is the paper's Eq. 16 on a variance-preserving path and holds on any other.
    """

    eta: float = param(0.0, "fresh noise per step: 0 = none (ODE), 1 = DDPM", ge=0, le=1)
    clip: float | None = param(None, "clip the predicted clean data to [-clip, clip]; none = no clipping", gt=0)

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """One network call a step; ``noise`` is used when ``eta > 0``."""
        total = len(times) - 1
        for i, (t, s) in enumerate(pairwise(times)):
            p = denoise(x, t)
            x = self._step(p, s, noise)
            yield Step(i, total, s, x, p)

    def _step(self, p: Prediction, s: float, noise: Any) -> Array:
        if self.eta == 0 and self.clip is None:
            return transfer(p, s)
        x0 = p.x0 if self.clip is None else p.x0.clip(-self.clip, self.clip)
        spread = self.eta * posterior_std(p.path, p.t, s)
        kept = math.sqrt(max(p.path.sigma(s) ** 2 - spread**2, 0.0))
        x = p.path.alpha(s) * x0 + kept * p.eps
        return x + spread * noise.fresh() if spread > 0 else x
