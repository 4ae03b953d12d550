"""Latents as a row of patches and back, with sizes that may be traced."""

from __future__ import annotations

from typing import Any


def patches(x: Any, rows: Any, columns: Any, p: int) -> Any:
    """Latents (B, C, [1,] h p, w p) as (B, h w, p p C), channel fastest within a patch."""
    x = x.reshape(x.shape[0], x.shape[1], rows, p, columns, p)  # (B, C, h, p, w, p)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (B, N, p p C)


def picture(tokens: Any, rows: Any, columns: Any, p: int) -> Any:
    """The inverse of ``patches``: (B, C, h p, w p)."""
    x = tokens.reshape(tokens.shape[0], rows, columns, p, p, -1)  # (B, h, w, p, p, C)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
