"""Helpers: latents seen as tokens on their grid. Torch tensors; imports nothing."""

from __future__ import annotations

from dit_tools.core.arrays import Array


def token_mask(chosen: Array, grid: tuple[int, int], latents: Array) -> Array:
    """True on the latents (b, 1, h, w) of chosen tokens (b, n)."""
    rows, columns = grid
    mask = latents.new_zeros((chosen.shape[0], rows * columns))
    mask = mask.scatter(1, chosen.to(latents.device), 1.0).reshape(-1, 1, rows, columns)
    for axis, side in ((2, rows), (3, columns)):
        mask = mask.repeat_interleave(latents.shape[axis] // side, axis)
    return mask > 0
