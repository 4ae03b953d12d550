"""What alignments of hidden states share: one block's output, kept while the alignment lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dit_tools.methods.objectives import NetworkInfo, Term, TrainingStep, block_of


class Alignment(Term):
    """A term that is on for the first ``until`` of the training and reads one block.

    ``module`` projects the block's hidden states of the image, (B, N, width); ``hidden(step)`` gives
    them after the forward pass, projected.
    """

    module: Any

    def __init__(self, weight: float, share: float, until: float, network: NetworkInfo):
        self.weight, self.until = weight, until
        self.index, self.tokens = block_of(share, network.depth), network.grid**2
        self.hooks = weight > 0

    def on(self, step: TrainingStep) -> bool:
        """Whether this step is aligned."""
        return self.hooks and step.step < self.until * step.steps

    @contextmanager
    def attach(self, step: TrainingStep) -> Iterator[None]:
        """Keep the block's output in the step's store."""
        if not self.on(step):
            yield
            return
        from dit_tools.nn.feature_capture import capture_output

        with capture_output(step.denoise.blocks[self.index].module, step.store, "hidden"):
            yield

    def hidden(self, step: TrainingStep) -> Any:
        """The projected hidden states (B, N, D) of this step."""
        from dit_tools.nn.feature_capture import image_tokens

        made = image_tokens(step.denoise.blocks[self.index], step.store["hidden"], self.tokens)
        return self.module(made.float())


class ToEncoder(Alignment):
    """An alignment with a frozen encoder's features of the clean images."""

    def __init__(self, chosen: Any, network: NetworkInfo):
        super().__init__(chosen.weight, chosen.block, chosen.until, network)
        if self.hooks:
            from dit_tools.nn.encoders import features
            from dit_tools.nn.projector import Projector

            self.features = features(chosen.encoder, network.images(), network.grid)
            out = self.features.shape[-1]
            self.module = Projector(network.width, 2 * network.width, out)

    def dissimilarity(self, step: TrainingStep) -> Any:
        """``1 - cos`` of projected hidden states and features, by token; a scalar."""
        import torch

        from dit_tools.nn.projector import dissimilarity

        wanted = self.features[torch.as_tensor(step.rows)].to(step.t.device).float()
        return dissimilarity(self.hidden(step), wanted)


def known(network: NetworkInfo | None) -> NetworkInfo:
    """The network of a term that looks into it. Raises ValueError when nothing is known of it."""
    if network is None:
        raise ValueError("this objective looks into the network: begin() needs a NetworkInfo")
    return network
