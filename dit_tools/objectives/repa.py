"""Alignment of hidden states with a frozen vision encoder, switched off early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.objectives._base import Objective, Setting, Term, View, block_of


@method(
    paper="arXiv:2410.06940",
    title="Representation Alignment for Generation: Training Diffusion Transformers Is Easier "
    "Than You Think",
    year=2024,
    authors="Yu et al.",
    identity={"weight": 0.0},
)
class Repa(Objective):
    """Align an early block, token by token, with features of the clean picture.

    ``1 - cos`` of a projection of the hidden state and the encoder's features (Eq. 7). The encoder
    is ``patches`` (mean, deviation and gradients of colour, computed here) or any vision model that
    transformers loads by its name. Aligning to the end can hurt: ``until`` switches it off, which
    is the early stop of HASTE (Wang et al. 2025, arXiv:2505.16792), without its attention loss.
    """

    weight: float = param(0.5, "weight of the loss; 0 is off", ge=0, le=100)
    encoder: str = param("patches", "patches, or the name of a vision model")
    block: float = param(0.3, "depth of the block that is aligned, as a share", ge=0, le=1)
    until: float = param(0.6, "share of the training after which it is off", ge=0, le=1)

    def begin(self, setting: Setting) -> Term:
        """A term with the features of all pictures, in half precision, and a projector."""
        return _Alignment(self, setting)


class _Alignment(Term):
    def __init__(self, chosen: Repa, setting: Setting):
        self.chosen, self.depth = chosen, setting.depth
        self.hooks = chosen.weight > 0
        if self.hooks:
            from dit_tools.nn.encoders import features
            from dit_tools.nn.projector import Projector

            self.features = features(chosen.encoder, setting.pictures(), setting.grid)
            out = self.features.shape[-1]
            self.module = Projector(setting.width, 2 * setting.width, out)

    def _on(self, view: View) -> bool:
        return self.hooks and view.step < self.chosen.until * view.steps

    @contextmanager
    def attach(self, view: View) -> Iterator[None]:
        if not self._on(view):
            yield
            return
        from dit_tools.nn.projector import kept

        blocks = view.networks.transformer.transformer_blocks
        with kept(blocks[block_of(self.chosen.block, self.depth)], view.store, "repa"):
            yield

    def extra(self, view: View) -> Any:
        if not self._on(view):
            return None
        import torch

        from dit_tools.nn.projector import dissimilarity

        wanted = self.features[torch.as_tensor(view.rows)].to(view.t.device).float()
        return self.chosen.weight * dissimilarity(self.module(view.store["repa"]), wanted)
