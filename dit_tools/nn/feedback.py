"""The feedback module of Inner Loop Feedback: a copy of a block that starts out saying nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dit_tools.core.blocks import Block


class Feedback(nn.Module):
    """``h + gamma (block(h) - h)`` with a learnt ``gamma`` per channel, zero at first.

    ``block`` is a copy of a transformer's block, called as that one is; ``index`` tells which
    element of its output is the image stream, None for a single tensor. Other streams pass.
    """

    def __init__(self, block: nn.Module, width: int, index: int | None, stream: str = "hidden_states"):
        super().__init__()
        self.block, self.index, self.stream = block, index, stream
        first = next(block.parameters())
        self.gamma = nn.Parameter(torch.zeros(width, device=first.device))

    @classmethod
    def of(cls, block: Block, width: int) -> Feedback:
        """From a block whose image stream has ``width`` channels; a copy.

        The copy has none of the hooks that hang on the block at the time.
        """
        module = block.module
        kept = module.__dict__.pop("_diffusers_hook", None), module.__dict__.pop("forward", None)
        try:
            made = copy.deepcopy(module)
        finally:
            for name, value in zip(("_diffusers_hook", "forward"), kept, strict=True):
                if value is not None:
                    module.__dict__[name] = value
        return cls(made, width, block.output, block.spec.stream)

    def load(self, arrays: Mapping[str, Any]) -> None:
        """Take over weights by name, numpy. Raises ValueError when they do not fit."""
        state = {name: torch.from_numpy(value) for name, value in arrays.items()}
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(str(error)) from error

    def forward(self, tree: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A forecast of what leaves a block, made better; ``args`` and ``kwargs`` are its own."""
        hidden = tree if self.index is None else tree[self.index]
        if self.stream in kwargs:
            kwargs = {**kwargs, self.stream: hidden}
        else:
            args = (hidden, *args[1:])
        output = self.block(*args, **kwargs)
        added = (output if self.index is None else output[self.index]) - hidden
        better = hidden + (self.gamma * added).to(hidden.dtype)
        if self.index is None:
            return better
        return tuple(better if i == self.index else part for i, part in enumerate(tree))
