"""Sparse attention corrected by what full attention said some calls ago, for one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dit_tools.core.run import RunState
from dit_tools.nn.attention_control import AttentionCall, control_attention, merge_image, split_image
from dit_tools.nn.window_attention import Tiled, Tiling, tiled, tiling


@dataclass
class Memory:
    """Of one attention module and tuple of branches, from its last full call.

    ``share`` (B, heads, N, 1): of the softmax mass, what lies within the window, for image queries.
    ``residual`` (B, heads, N, d): full output minus ``share`` times the sparse output.
    """

    share: Tensor
    residual: Tensor
    call: int  # at which it was learned


def reuse_attention(
    blocks: Sequence[Any], run: RunState, density: float, warmup: int, refresh: int, drift: float, option: str
) -> AbstractContextManager[None]:
    """Image queries see ``density`` of the image's keys, and all of them from time to time.

    Full are the first ``warmup`` calls and those ``refresh`` calls after the last full one, also
    for branches that were away. The share of mass grows by ``drift`` a sparse call, up to 1.
    Raises UnsupportedError as ``control_attention`` does.
    """
    count = run.grid[0] * run.grid[1]
    tiles = window_tiling(run.grid, density)
    memories: dict[tuple[int, tuple[int, tuple[str, ...]]], Memory] = {}

    def replace(call: AttentionCall) -> Tensor:
        key = call.site, run.key
        memory = memories.get(key)
        if memory is None or run.call < warmup or run.call - memory.call >= refresh:
            run.count["attention pairs"] += count**2
            output, memories[key] = learn_statistics(call, count, tiles, run.call)
            return output
        run.count["attention pairs"] += tiles.pairs
        run.count["attention pairs saved"] += count**2 - tiles.pairs
        output = correct_output(call, count, tiles, memory)
        memory.share = (memory.share + drift).clamp(max=1)
        return output

    return control_attention(blocks, lambda: count, replace, option)


def window_tiling(grid: Sequence[int], density: float) -> Tiling:
    """Windows of about ``density`` of the grid around tiles of half their side."""
    rows, columns = grid
    side = math.sqrt(density)
    window = [min(max(round(side * length), 1), length) for length in (rows, columns)]
    return tiling(grid, [max(length // 2, 1) for length in window], window)


def learn_statistics(call: AttentionCall, count: int, tiles: Tiling, now: int) -> tuple[Tensor, Memory]:
    """The network's own product, and what it says about the sparse one."""
    output = call.run()
    parts, _ = tiled(call, count, tiles)
    sparse = parts.gather(call.product(parts.q, parts.k, parts.v, parts.mask))
    image, _ = split_image(output, call.start, count)
    share = parts.gather(torch.exp(_inside(call, parts) - _whole(call, parts)))
    share = share.clamp(max=1).to(output.dtype)
    return output, Memory(share, image - share * sparse, now)


def correct_output(call: AttentionCall, count: int, tiles: Tiling, memory: Memory) -> Tensor:
    """``share softmax_window(q k) v + residual``; queries off the grid see everything."""
    parts, off = tiled(call, count, tiles)
    image = parts.gather(call.product(parts.q, parts.k, parts.v, parts.mask))
    image = memory.share * image + memory.residual
    if off.shape[2]:
        off = call.product(off, call.k, call.v, call.key_mask)
    return merge_image(image, off, call.start)


def _inside(call: AttentionCall, parts: Tiled) -> Tensor:
    """Log of the softmax mass inside the window, (B T, heads, q, 1), in float32."""
    return _log_mass(parts.q, parts.k, parts.mask, call.scale)


def _whole(call: AttentionCall, parts: Tiled) -> Tensor:
    """Log of all softmax mass of the same queries; a tile at a time, as N x N may not fit."""
    count = parts.tiles.queries.shape[0]
    q = parts.q.unflatten(0, (-1, count))
    tiles = [_log_mass(q[:, i], call.k, call.key_mask, call.scale) for i in range(count)]
    return torch.stack(tiles, 1).flatten(0, 1)


def _log_mass(q: Tensor, k: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    scores = scale * (q.float() @ k.float().transpose(-1, -2))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.logsumexp(-1, keepdim=True)
