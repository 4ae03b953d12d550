"""Immiscible diffusion: each image is trained with noise that lies near it."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import NetworkInfo, Objective, Term
from dit_tools.methods.objectives._assign import assign_columns


@method(
    paper="arXiv:2406.12303",
    title="Immiscible Diffusion: Accelerating Diffusion Training with Noise Assignment",
    year=2024,
    authors="Li et al.",
    identity={"assign": "nearest", "draws": 1},
)
class Immiscible(Objective):
    """Assign noise to images by distance within a batch, so that their paths mix less.

    ``batch`` permutes the batch's noise to the least sum of distances (Sec. 3.2): the noise stays
    exactly normal. ``nearest`` takes the nearest of several draws for each image: cheaper, but
    the chosen noise is a little too small, which many draws make worse in few dimensions. Losses
    of different assignments cannot be compared with each other.
    """

    assign: str = param("batch", "how noise is assigned", choices=("batch", "nearest"))
    draws: int = param(8, "draws for each image with 'nearest'", ge=1, le=1024)

    def begin(self, network: NetworkInfo | None) -> Term:
        """A term without state."""
        return _Coupling(self)


class _Coupling(Term):
    def __init__(self, chosen: Immiscible):
        self.chosen = chosen

    def couple(self, x0: Any, noise: Any, rng: Any) -> Any:
        import torch

        flat, own = x0.flatten(1).float(), noise.flatten(1)
        if self.chosen.assign == "batch":
            # |x - n|^2 without |x|^2 and |n|^2, which no permutation changes.
            cost = (-2 * flat @ own.T).cpu().numpy()
            return noise[torch.from_numpy(assign_columns(cost)).to(noise.device)]
        best, distance = noise.clone(), (flat - own).square().sum(1)
        for _ in range(self.chosen.draws - 1):
            other = torch.from_numpy(rng.standard_normal(tuple(noise.shape), dtype="float32"))
            other = other.to(noise)
            far = (flat - other.flatten(1)).square().sum(1)
            nearer = far < distance
            best[nearer], distance = other[nearer], torch.minimum(far, distance)
        return best
