"""Deferred masking: most tokens leave after the first blocks, which mix them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import NetworkInfo, Objective, Term, TrainingStep, block_of
from dit_tools.methods.objectives._align import known


@method(
    paper="arXiv:2407.15811",
    title="Stretching Each Dollar: Diffusion Training from Scratch on a Micro-Budget",
    year=2024,
    authors="Sehwag et al.",
    identity={"ratio": 0.0},
)
class Masking(Objective):
    """Leave out a random share of the tokens behind the first blocks; the loss is of those kept.

    The network's own first blocks are the patch mixer (Sec. 3.1, there a small network in front).
    Saves time only with many tokens: below some 256 the rest of the step takes most of it. The
    last part of the training is unmasked, or else images are inconsistent between patches.
    """

    ratio: float = param(0.5, "share of the tokens left out; 0 is off", ge=0, le=0.95)
    mixer: float = param(0.25, "share of the blocks that see all tokens", ge=0, le=0.9)
    until: float = param(0.85, "share of the training after which nothing is left out", ge=0, le=1)

    def begin(self, network: NetworkInfo | None) -> Term:
        """A term with the learned mask token."""
        made = known(network)
        if self.ratio:
            made.require_plain_blocks("masking", "tokens can leave only where no block asks for their places")
        return _Masking(self, made)


class _Masking(Term):
    module: Any

    def __init__(self, chosen: Masking, network: NetworkInfo):
        from dit_tools.nn.token_dropping import MaskToken

        self.chosen, self.network = chosen, network
        self.keep = max(1, round((1 - chosen.ratio) * network.grid**2))
        self.hooks = self.keep < network.grid**2
        if self.hooks:
            self.module = MaskToken(network.width)

    def _on(self, step: TrainingStep) -> bool:
        return self.hooks and step.step < self.chosen.until * step.steps

    @contextmanager
    def attach(self, step: TrainingStep) -> Iterator[None]:
        if not self._on(step):
            yield
            return
        import torch

        from dit_tools.nn.token_dropping import drop_tokens

        order = step.rng.random((len(step.t), self.network.grid**2)).argsort(axis=1)
        ids = torch.from_numpy(order[:, : self.keep].copy()).to(step.t.device)
        step.store["kept"] = ids
        first = block_of(self.chosen.mixer, self.network.depth) + (self.chosen.mixer > 0)
        first = min(first, self.network.depth - 1)
        blocks = [block.module for block in step.denoise.blocks]
        with drop_tokens(blocks, first, ids, self.module):
            yield

    def reduce(self, error: Any, step: TrainingStep) -> Any:
        if not self._on(step):
            return None
        import torch

        grid, patch = self.network.grid, self.network.patch
        kept = torch.zeros(len(error), grid**2, device=error.device)
        kept.scatter_(1, step.store["kept"], 1.0)
        kept = kept.reshape(-1, 1, grid, grid)
        kept = kept.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
        return (error * kept).sum() / (kept.sum() * error.shape[1])
