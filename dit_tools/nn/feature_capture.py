"""Hidden states of a transformer's blocks as maps, and energies that compare them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dit_tools.nn.hooks import around_forward


class _Enough(Exception):
    """The last block that was wanted has run."""


def features(
    blocks: Sequence[Any], chosen: Sequence[int], grid: tuple[int, int], run: Callable[[], Any]
) -> list[Tensor]:
    """Hidden states (B, D, rows, columns) of the chosen blocks while ``run()`` calls the network.

    ``chosen`` rises. The call is cut short after the last of them, so that no graph and no time is
    spent on the rest. ``grid``: rows and columns of image tokens.
    """
    found: list[Tensor] = []

    def around(position: int, compute: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        made = compute()
        found.append(_map(blocks[chosen[position]], made, grid))
        if position == len(chosen) - 1:
            raise _Enough
        return made

    with around_forward([blocks[i].module for i in chosen], around, "features"):
        try:
            run()
        except _Enough:
            return found
    raise RuntimeError("the chosen blocks did not run in order")


def _map(block: Any, made: Any, grid: tuple[int, int]) -> Tensor:
    """The image tokens of a block's output (B, N, D) as a map (B, D, rows, columns)."""
    tokens = made if block.output is None else made[block.output]
    count = grid[0] * grid[1]
    first = 0 if type(block.module).__name__.startswith("ZImage") else tokens.shape[1] - count
    tokens = tokens[:, first : first + count].float()
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def likeness(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """Mean cosine of two maps (1, D, h, w) within a mask (1, 1, h, w), in [-1, 1]; 1 if empty."""
    if not bool(mask.any()):
        return torch.ones((), dtype=a.dtype)
    cosine = functional.cosine_similarity(a, b, dim=1)[:, None]
    return (cosine * mask).sum() / mask.sum()


def mean_likeness(a: Tensor, b: Tensor, mask_a: Tensor, mask_b: Tensor) -> Tensor:
    """Cosine, as a share 0..1, of the mean features in two masks; 1 where either is empty."""
    if not (bool(mask_a.any()) and bool(mask_b.any())):
        return torch.ones((), dtype=a.dtype)
    means = [(x * m).sum((2, 3)) / m.sum() for x, m in ((a, mask_a), (b, mask_b))]
    return (functional.cosine_similarity(means[0], means[1]).mean() + 1) / 2


def sampled(x: Tensor, places: Tensor) -> Tensor:
    """A map (1, D, h, w) read at ``places`` (h', w', 2), columns and rows of its cells."""
    height, width = x.shape[-2:]
    scale = torch.tensor([width, height], dtype=places.dtype)
    normal = (2 * places + 1) / scale - 1
    return functional.grid_sample(x, normal[None].to(x.dtype), "bilinear", "border", align_corners=False)
