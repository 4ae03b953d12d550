"""Attention of image tokens within windows of their grid; tokens off the grid are seen by all."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dit_tools.core.run import RunState
from dit_tools.nn.attention_control import AttentionCall, control_attention, merge_image, split_image


@dataclass(frozen=True)
class Tiling:
    """Which queries share which keys on a grid of N tokens.

    ``queries`` (T, q) and ``keys`` (T, k) are token indices of T tiles; tiles at the edge overlap
    rather than being smaller, and ``read`` (N,) tells in which place of the T q results each
    token's own lies.
    """

    queries: Tensor
    keys: Tensor
    read: Tensor

    @property
    def pairs(self) -> int:
        """Pairs of query and key that are computed."""
        return self.queries.numel() * self.keys.shape[1]


def tiling(grid: Sequence[int], tile: Sequence[int], window: Sequence[int], shift: Sequence[int] = (0, 0)) -> Tiling:
    """Tiles of ``tile`` tokens whose keys are the ``window`` around them, kept inside the grid.

    ``shift`` rolls rows and columns around the borders first. Sides are those of the grid at most.
    """
    axes = [_axis(*sizes) for sizes in zip(grid, tile, window, strict=True)]
    rows, columns = grid
    rolled = torch.arange(rows * columns).reshape(rows, columns)
    rolled = rolled.roll((-shift[0], -shift[1]), (0, 1))
    queries, keys = [], []
    for top, above in zip(*axes[0], strict=True):
        for left, before in zip(*axes[1], strict=True):
            queries.append(rolled[top : top + tile[0], left : left + tile[1]].flatten())
            keys.append(rolled[above : above + window[0], before : before + window[1]].flatten())
    places = torch.stack(queries)
    read = torch.empty(rows * columns, dtype=torch.int64)
    for place, token in enumerate(places.flatten().tolist()):
        read[token] = place
    return Tiling(places, torch.stack(keys), read)


def _axis(length: int, tile: int, window: int) -> tuple[list[int], list[int]]:
    """First tokens of the tiles of an axis and of their windows."""
    starts = [min(i * tile, length - tile) for i in range(math.ceil(length / tile))]
    middle = [start + tile / 2 - window / 2 for start in starts]
    return starts, [min(max(math.floor(first), 0), length - window) for first in middle]


@dataclass(frozen=True)
class Tiled:
    """A product whose image queries see the keys of their tile and all other tokens' keys.

    ``q`` (B T, heads, q, d), ``k`` and ``v`` (B T, heads, k + R, d) for R tokens off the grid,
    ``mask`` (B T, 1, 1, k + R) or None.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    tiles: Tiling

    def gather(self, made: Tensor) -> Tensor:
        """Results of the tiles (B T, heads, q, e) by token: (B, heads, N, e)."""
        count, size = self.tiles.queries.shape
        x = made.unflatten(0, (-1, count)).permute(0, 2, 1, 3, 4)  # (B, heads, T, q, e)
        return x.flatten(2, 3)[:, :, self.tiles.read.to(made.device)]


def tiled(call: AttentionCall, count: int, tiles: Tiling) -> tuple[Tiled, Tensor]:
    """The product over tiles, and the queries (B, heads, R, d) of tokens off the grid.

    ``count``: image tokens, the N of the tiling.
    """
    q, off = split_image(call.q, call.start, count)
    k, v = (_keys(x, call.start, count, tiles) for x in (call.k, call.v))
    mask = call.key_mask
    if mask is not None:
        tall = mask.transpose(2, 3).expand(q.shape[0], 1, -1, 1)  # (B, 1, S, 1)
        mask = _keys(tall, call.start, count, tiles).transpose(2, 3)
    queries = tiles.queries.to(q.device)
    return Tiled(_folded(q[:, :, queries]), k, v, mask, tiles), off


def _keys(x: Tensor, start: int | Tensor, count: int, tiles: Tiling) -> Tensor:
    """Per tile: its window of the image's tokens, then the others. (B T, heads, k + R, e)."""
    image, rest = split_image(x, start, count)
    own = image[:, :, tiles.keys.to(x.device)]  # (B, heads, T, k, e)
    others = rest[:, :, None].expand(-1, -1, own.shape[2], -1, -1)
    return _folded(torch.cat([own, others], 3))


def _folded(x: Tensor) -> Tensor:
    """(B, heads, T, s, e) as (B T, heads, s, e)."""
    return x.transpose(1, 2).flatten(0, 1)


def use_windows(
    blocks: Sequence[Any], run: RunState, windows: int, roll: Callable[[int, int], int], option: str
) -> AbstractContextManager[None]:
    """Image tokens attend within ``windows`` x ``windows`` windows of their grid, and to all text.

    ``roll(call, site)``: by how many quarters of a window the grid is rolled.
    Raises UnsupportedError as ``control_attention`` does.
    """
    rows, columns = run.grid
    size = (math.ceil(rows / windows), math.ceil(columns / windows))

    @functools.cache
    def tiles(quarters: int) -> Tiling:
        shift = tuple(side * quarters // 4 for side in size)
        return tiling(run.grid, size, size, shift)

    def replace(call: AttentionCall) -> Tensor:
        chosen = tiles(roll(run.call, call.site))
        run.count["attention pairs"] += chosen.pairs
        run.count["attention pairs saved"] += (rows * columns) ** 2 - chosen.pairs
        return windowed_product(call, rows * columns, chosen)

    return control_attention(blocks, lambda: rows * columns, replace, option)


def windowed_product(call: AttentionCall, count: int, tiles: Tiling) -> Tensor:
    """The product with image queries kept to their tile's keys; other queries see everything."""
    parts, off = tiled(call, count, tiles)
    image = parts.gather(call.product(parts.q, parts.k, parts.v, parts.mask))
    if off.shape[2]:
        off = call.product(off, call.k, call.v, call.key_mask)
    return merge_image(image, off, call.start)
