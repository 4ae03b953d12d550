"""The projector of alignment losses."""

from __future__ import annotations

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


def dissimilarity(a: torch.Tensor, b: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Mean of ``1 - cos`` between (B, N, D) tensors along ``dim``; a scalar in [0, 2]."""
    return (1 - functional.cosine_similarity(a.float(), b.float(), dim=dim)).mean()
