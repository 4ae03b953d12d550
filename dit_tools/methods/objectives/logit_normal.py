"""Rectified flow with logit-normal times."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import NetworkInfo, Objective, Term


@method(
    paper="arXiv:2403.03206",
    title="Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
    year=2024,
    authors="Esser et al.",
)
class LogitNormal(Objective):
    """Times ``sigmoid(mean + std n)`` with normal ``n``: most training between noise and image.

    Sec. 3.1, Eq. 19. The default of every recipe, with these parameters.
    """

    mean: float = param(0.0, "centre in logits; above 0 trains more on noise", ge=-5, le=5)
    std: float = param(1.0, "spread in logits", gt=0, le=10)

    def begin(self, network: NetworkInfo | None) -> Term:
        """Times by quantiles, so that a stratified batch stays stratified."""
        return _Times(self)


class _Times(Term):
    def __init__(self, chosen: LogitNormal):
        self.chosen = chosen

    def times(self, uniform: Any) -> Any:
        import torch

        normal = torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4))
        return torch.sigmoid(self.chosen.mean + self.chosen.std * normal).float()
