"""Some tokens of a grid stand for all: which to begin with, and how to fill in the others."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

WIDTH = 0.4
"""Deviation of the blur in units of the mean distance between anchors (reference code of JiT)."""


def first_anchors(grid: tuple[int, int], count: int, rows: int) -> Tensor:
    """``count`` tokens of a grid, rising, the same for ``rows`` images: (rows, count).

    A grid of every second token and the border, topped up or thinned out at random; the draw is
    always the same.
    """
    places = torch.arange(grid[0] * grid[1]).reshape(grid)
    wanted = torch.zeros(grid, dtype=torch.bool)
    wanted[::2, ::2] = True
    wanted[0], wanted[-1], wanted[:, 0], wanted[:, -1] = (True,) * 4
    shuffled = places.flatten()[torch.randperm(places.numel(), generator=torch.Generator())]
    order = (~wanted.flatten()[shuffled]).to(torch.uint8).argsort(stable=True)
    return shuffled[order[:count]].sort().values.expand(rows, -1)


class Interpolation:
    """Values on a grid from those at its anchors (b, m), for the other tokens.

    Nearest anchor, then a Gaussian blur over the whole grid, of which only the other tokens are
    taken: anchors keep their own values. The blur's weights are those inside the grid.
    """

    def __init__(self, anchors: Tensor, grid: tuple[int, int]):
        self.grid, count = grid, grid[0] * grid[1]
        self.anchors = anchors
        self._own = torch.zeros(anchors.shape[0], count, dtype=torch.bool, device=anchors.device)
        self._own.scatter_(1, anchors, True)
        places = torch.arange(count, device=anchors.device)
        where = torch.stack([places // grid[1], places % grid[1]], 1).float()  # (N, 2)
        nearest = [torch.cdist(where, where[row]).argmin(1) for row in anchors]
        self._nearest = torch.stack(nearest)  # (b, N), into the anchors
        density = anchors.shape[1] / count
        self._blur = _gaussian(min(max(WIDTH / math.sqrt(density), 1.0), 10.0), anchors.device)

    def __call__(self, x: Tensor) -> Tensor:
        """Latents (b, C, h, w) whose other tokens are filled in from the anchors."""
        patch = x.shape[2] // self.grid[0]
        cells = functional.pixel_unshuffle(x, patch).flatten(2)  # (b, C p p, N)
        source = self.anchors.gather(1, self._nearest)[:, None].expand(-1, cells.shape[1], -1)
        filled = self._blurred(cells.gather(2, source))
        made = torch.where(self._own[:, None], cells, filled)
        return functional.pixel_shuffle(made.unflatten(2, self.grid), patch)

    def _blurred(self, cells: Tensor) -> Tensor:
        field = cells.unflatten(2, self.grid)
        ones = torch.ones_like(field[:1, :1])
        return (self._smooth(field) / self._smooth(ones)).flatten(2)

    def _smooth(self, field: Tensor) -> Tensor:
        flat = field.flatten(0, 1)[:, None]  # (b c, 1, rows, columns)
        kernel, reach = self._blur.to(field.dtype), len(self._blur) // 2
        flat = functional.conv2d(flat, kernel[None, None, :, None], padding=(reach, 0))
        flat = functional.conv2d(flat, kernel[None, None, None], padding=(0, reach))
        return flat[:, 0].unflatten(0, field.shape[:2])


def _gaussian(deviation: float, device: torch.device) -> Tensor:
    reach = math.ceil(3 * deviation)
    places = torch.arange(-reach, reach + 1, device=device, dtype=torch.float32)
    weights = torch.exp(-(places**2) / (2 * deviation**2))
    return weights / weights.sum()


def importance(velocity: Tensor, grid: tuple[int, int]) -> Tensor:
    """Variance of a velocity (b, C, h, w) in 3 x 3 tokens, mean over channels: (b, N)."""
    cells = functional.pixel_unshuffle(velocity, velocity.shape[2] // grid[0])

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    return (mean(cells**2) - mean(cells) ** 2).mean(1).flatten(1)


def add_tokens(anchors: Tensor, weight: Tensor, count: int) -> Tensor:
    """``count`` tokens (b, count), rising: the anchors and those of the largest weight (b, N)."""
    weight = weight.scatter(1, anchors, math.inf)
    return weight.topk(count, 1).indices.sort(1).values
