"""Tokens that leave a transformer after its first blocks and come back behind its last one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class MaskToken(nn.Module):
    """What stands for a token that was left out: one learned vector of the hidden width."""

    def __init__(self, width: int):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(width))


@contextmanager
def drop_tokens(blocks: Any, first: int, ids: torch.Tensor, token: MaskToken) -> Iterator[None]:
    """Blocks from ``first`` on see the tokens ``ids`` (B, K) alone, of hidden (B, N, D)."""
    count = 0

    def leave(_module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        nonlocal count
        hidden = args[0] if args else kwargs["hidden_states"]
        count = hidden.shape[1]
        chosen = torch.gather(hidden, 1, ids[..., None].expand(-1, -1, hidden.shape[2]))
        if args:
            return (chosen, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": chosen}

    def come_back(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
        width = output.shape[2]
        full = token.token.to(output.dtype).expand(len(output), count, width)
        return full.scatter(1, ids[..., None].expand(-1, -1, width), output)

    handles = [
        blocks[first].register_forward_pre_hook(leave, with_kwargs=True),
        blocks[-1].register_forward_hook(come_back),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
