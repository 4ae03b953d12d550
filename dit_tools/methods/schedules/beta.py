"""Times at the quantiles of a Beta distribution."""

from __future__ import annotations

from dit_tools.core.paths import ModelInfo
from dit_tools.core.registry import method, param
from dit_tools.methods.schedules import Schedule, _ramps


@method(
    paper="arXiv:2407.12173",
    year=2024,
    title="Beta Sampling is All You Need: Efficient Image Generation Strategy for Diffusion "
    "Models using Stepwise Spectral Analysis",
    authors="Lee, Lee, Gye, Kim",
)
class Beta(Schedule):
    """Times at equally spaced quantiles of Beta(alpha, beta), dense at both ends for 0.6, 0.6.

    Quantiles of t itself, from 1 to 0. Not the same as diffusers' use_beta_sigmas, which takes
    quantiles of sigma down to the lowest level of training (see ``native``).
    """

    alpha: float = param(0.6, "below 1: more steps near the clean image", ge=0.3, le=100)
    beta: float = param(0.6, "below 1: more steps near noise", ge=0.3, le=100)

    def times(self, steps: int, target: ModelInfo) -> tuple[float, ...]:
        """``steps + 1`` times from 1 to 0."""
        inner = [_ramps.beta_quantile(i / steps, self.alpha, self.beta) for i in range(steps + 1)]
        return tuple(reversed(inner))
