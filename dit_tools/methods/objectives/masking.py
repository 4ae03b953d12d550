"""Deferred masking: most tokens leave after the first blocks, which mix them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import Objective, Setting, Term, View, block_of


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
    last part of the training is unmasked, else pictures are inconsistent between patches.
    """

    ratio: float = param(0.5, "share of the tokens left out; 0 is off", ge=0, le=0.95)
    mixer: float = param(0.25, "share of the blocks that see all tokens", ge=0, le=0.9)
    until: float = param(0.85, "share of the training after which nothing is left out", ge=0, le=1)

    def begin(self, setting: Setting) -> Term:
        """A term with the learned mask token."""
        return _Masking(self, setting)


class _Masking(Term):
    def __init__(self, chosen: Masking, setting: Setting):
        from dit_tools.nn.token_dropping import MaskToken

        self.chosen, self.setting = chosen, setting
        self.keep = max(1, round((1 - chosen.ratio) * setting.grid**2))
        self.hooks = self.keep < setting.grid**2
        if self.hooks:
            self.module = MaskToken(setting.width)

    def _on(self, view: View) -> bool:
        return self.hooks and view.step < self.chosen.until * view.steps

    @contextmanager
    def attach(self, view: View) -> Iterator[None]:
        if not self._on(view):
            yield
            return
        import torch

        from dit_tools.nn.token_dropping import dropped

        order = view.rng.random((len(view.t), self.setting.grid**2)).argsort(axis=1)
        ids = torch.from_numpy(order[:, : self.keep].copy()).to(view.t.device)
        view.store["kept"] = ids
        first = block_of(self.chosen.mixer, self.setting.depth) + (self.chosen.mixer > 0)
        first = min(first, self.setting.depth - 1)
        blocks = view.networks.transformer.transformer_blocks
        with dropped(blocks, first, ids, self.module):
            yield

    def reduce(self, error: Any, view: View) -> Any:
        if not self._on(view):
            return None
        import torch

        grid, patch = self.setting.grid, self.setting.patch
        kept = torch.zeros(len(error), grid**2, device=error.device)
        kept.scatter_(1, view.store["kept"], 1.0)
        kept = kept.reshape(-1, 1, grid, grid)
        kept = kept.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
        return (error * kept).sum() / (kept.sum() * error.shape[1])
