"""Variance expansion: an autoencoder whose latents are spread instead of pulled to a normal."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import NetworkInfo, Objective, Term


@method(
    paper="arXiv:2603.21085",
    title="Taming Sampling Perturbations with Variance Expansion Loss for Latent Diffusion Models",
    year=2026,
    authors="Li et al.",
    identity={"weight": 0.0},
)
class VarianceExpansion(Objective):
    """Reward a large posterior variance: ``weight / (var + floor) + size e^(|z| - 1)``.

    With the reconstruction loss, which wants it small, the deviation settles at
    ``(weight / Tr J J^T)^(1/4)`` for a decoder with Jacobian J. For ``[autoencoder]`` only; the
    decoder then sees latents drawn from the posterior.
    """

    stage = "autoencoder"
    weight: float = param(0.1, "weight of the variance; 0 is off", ge=0, le=1000)
    floor: float = param(1e-4, "added to the variance", gt=0, le=1)
    size: float = param(1e-6, "weight that keeps latents from growing", ge=0, le=1)

    def begin(self, network: NetworkInfo | None) -> Term:
        """A term without state; ``latents`` is its use."""
        return Expansion(self)


class Expansion(Term):
    """Draws latents and gives the loss of their posterior."""

    def __init__(self, chosen: VarianceExpansion):
        self.chosen = chosen
        self.hooks = chosen.weight > 0

    def latents(self, mean: Any, logvar: Any, noise: Any) -> tuple[Any, Any]:
        """Latents drawn with ``noise``, and the loss; all of shape (B, C, h, w) but that."""
        variance = logvar.float().clamp(-30, 20).exp()
        drawn = mean + variance.sqrt() * noise
        loss = (self.chosen.weight / (variance + self.chosen.floor)).mean()
        return drawn, loss + self.chosen.size * (mean.float().abs() - 1).exp().mean()
