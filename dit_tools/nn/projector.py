"""The projector of alignment losses, and features out of a running transformer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Projector(nn.Sequential):
    """Linear, SiLU, Linear, SiLU, Linear: (..., width) to (..., out). Repeats for one seed."""

    def __init__(self, width: int, hidden: int, out: int, seed: int = 0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out)
            )


class Enough(Exception):
    """Ends a forward pass whose rest is not needed."""


@contextmanager
def kept(block: Any, store: dict[str, Any], name: str, stop: bool = False) -> Iterator[None]:
    """Keep the output (B, N, D) of ``block`` in ``store[name]``; ``stop`` ends the pass there."""

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        store[name] = output[0] if isinstance(output, tuple) else output
        if stop:
            raise Enough

    handle = block.register_forward_hook(keep)
    try:
        yield
    except Enough:
        pass
    finally:
        handle.remove()


def dissimilarity(a: torch.Tensor, b: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Mean of ``1 - cos`` between (B, N, D) tensors along ``dim``; a scalar in [0, 2]."""
    return (1 - functional.cosine_similarity(a.float(), b.float(), dim=dim)).mean()
