"""Shifted windows in place of full attention, for the length of one run."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from dit_tools.core.run import RunState
from dit_tools.nn.attention_product import Product, attending, together
from dit_tools.nn.windows import Tiling, tiled, tiling


def windowed(
    blocks: Sequence[Any], run: RunState, windows: int, roll: Callable[[int, int], int], option: str
) -> AbstractContextManager[None]:
    """Image tokens attend within ``windows`` x ``windows`` windows of their grid, and to all text.

    ``roll(call, site)``: by how many quarters of a window the grid is rolled.
    Raises UnsupportedError as ``attending`` does.
    """
    rows, columns = run.grid
    size = (math.ceil(rows / windows), math.ceil(columns / windows))

    @functools.cache
    def tiles(quarters: int) -> Tiling:
        shift = tuple(side * quarters // 4 for side in size)
        return tiling(run.grid, size, size, shift)

    def replace(site: int, product: Product) -> Tensor:
        chosen = tiles(roll(run.call, site))
        run.count["attention pairs"] += chosen.pairs
        run.count["attention pairs saved"] += (rows * columns) ** 2 - chosen.pairs
        return windowed_product(product, rows * columns, chosen)

    return attending(blocks, lambda: rows * columns, replace, option, "dit_attention")


def windowed_product(product: Product, count: int, tiles: Tiling) -> Tensor:
    """The product with image queries kept to their tile's keys; other queries see everything."""
    parts, off = tiled(product, count, tiles)
    image = parts.gather(product.plain(parts.q, parts.k, parts.v, parts.mask))
    if off.shape[2]:
        off = product.plain(off, product.k, product.v, product.mask)
    return together(image, off, product.start)
