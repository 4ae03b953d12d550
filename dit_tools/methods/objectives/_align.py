"""What alignments of hidden states share: one block's output, kept while the alignment lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dit_tools.methods.objectives import Term, View, block_of


class Alignment(Term):
    """A term that is on for the first ``until`` of the training and reads one block.

    ``module`` projects the block's hidden states (B, N, width); ``hidden(view)`` gives them behind
    the forward pass, projected.
    """

    def __init__(self, weight: float, share: float, until: float, depth: int):
        self.weight, self.until = weight, until
        self.index = block_of(share, depth)
        self.hooks = weight > 0

    def on(self, view: View) -> bool:
        """Whether this step is aligned."""
        return self.hooks and view.step < self.until * view.steps

    @contextmanager
    def attach(self, view: View) -> Iterator[None]:
        """Keep the block's output in the step's store."""
        if not self.on(view):
            yield
            return
        from dit_tools.nn.feature_capture import capture_output

        with capture_output(view.networks.transformer.transformer_blocks[self.index], view.store, "hidden"):
            yield

    def hidden(self, view: View) -> Any:
        """The projected hidden states (B, N, D) of this step."""
        return self.module(view.store["hidden"])


class ToEncoder(Alignment):
    """An alignment with a frozen encoder's features of the clean pictures."""

    def __init__(self, chosen: Any, setting: Any):
        super().__init__(chosen.weight, chosen.block, chosen.until, setting.depth)
        if self.hooks:
            from dit_tools.nn.encoders import features
            from dit_tools.nn.projector import Projector

            self.features = features(chosen.encoder, setting.pictures(), setting.grid)
            out = self.features.shape[-1]
            self.module = Projector(setting.width, 2 * setting.width, out)

    def dissimilarity(self, view: View) -> Any:
        """``1 - cos`` of projected hidden states and features, by token; a scalar."""
        import torch

        from dit_tools.nn.projector import dissimilarity

        wanted = self.features[torch.as_tensor(view.rows)].to(view.t.device).float()
        return dissimilarity(self.hidden(view), wanted)
