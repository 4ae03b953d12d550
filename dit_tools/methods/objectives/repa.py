"""Alignment of hidden states with a frozen vision encoder, switched off early."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import NetworkInfo, Objective, Term, TrainingStep
from dit_tools.methods.objectives._align import ToEncoder, known


@method(
    paper="arXiv:2410.06940",
    title="Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You Think",
    year=2024,
    authors="Yu et al.",
    identity={"weight": 0.0},
)
class Repa(Objective):
    """Align an early block, token by token, with features of the clean image.

    ``1 - cos`` of a projection of the hidden state and the encoder's features (Eq. 7). The encoder
    is ``patches`` (mean, deviation and gradients of colour, computed here), or a vision model of
    transformers or an autoencoder of diffusers, by its folder or name. Aligning to the end can
    hurt: ``until`` switches it off. ``haste`` also aligns attention.
    """

    weight: float = param(0.5, "weight of the loss; 0 is off", ge=0, le=100)
    encoder: str = param("patches", "patches, or a vision model or autoencoder")
    block: float = param(0.3, "depth of the block that is aligned, as a share", ge=0, le=1)
    until: float = param(0.6, "share of the training after which it is off", ge=0, le=1)

    def begin(self, network: NetworkInfo | None) -> Term:
        """A term with the features of all images, in half precision, and a projector."""
        return _Alignment(self, known(network))


class _Alignment(ToEncoder):
    def loss(self, step: TrainingStep) -> dict[str, Any]:
        return {"alignment": self.weight * self.dissimilarity(step)} if self.on(step) else {}
