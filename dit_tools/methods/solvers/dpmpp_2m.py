"""DPM-Solver++(2M): second-order multistep on the predicted clean data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Path, log_snr
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.methods.solvers import Denoise, Solver, Step, advance


@method(
    paper="arXiv:2211.01095",
    year=2022,
    title="DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
    authors="Lu, Zhou, Bao, Chen, Li, Zhu",
)
class Dpmpp2M(Solver):
    """Multistep steps of order 2 in lambda = log(alpha / sigma) (Alg. 2, midpoint form).

    ``x_s = sigma_s/sigma_t x + (alpha_s - alpha_t sigma_s/sigma_t) D`` with
    ``D = x0 + h / (2 h_before) (x0 - x0_before)``; finite also where alpha or sigma is 0.
    The step to sigma = 0 is of order 1, as is the last of fewer than 15 with lower_order_final.
    """

    order: int = param(2, "1 = DDIM, 2 = with the previous prediction", ge=1, le=2)
    lower_order_final: bool = param(True, "last step of order 1 when there are fewer than 15")

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """One network call a step."""
        total = len(times) - 1
        before: Prediction | None = None
        for i, (t, s) in enumerate(pairwise(times)):
            p = denoise(x, t)
            data = p.x0
            low = self.order == 1 or (self.lower_order_final and i == total - 1 and total < 15)
            weight = 0.0 if before is None or low else _weight(p.path, before.t, t, s)
            if weight and before is not None:
                data = data + weight * (data - before.x0)
            x = advance(p.path, x, data, t, s)
            before = p
            yield Step(i, total, s, x, p)


def _weight(path: Path, before: float, t: float, s: float) -> float:
    """``h / (2 h_before)``; 0 where either is infinite or nothing moved."""
    last, here, there = (log_snr(path, time) for time in (before, t, s))
    h, h_before = there - here, here - last
    return 0.0 if math.isinf(h) or math.isinf(h_before) else h / (2 * h_before)
