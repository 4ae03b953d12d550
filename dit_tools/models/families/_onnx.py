"""Rotary embeddings without complex numbers, which ONNX does not have, and latents as patches.

An angle is a pair (cos, sin) in a last axis of 2; tables are gathered by position as in diffusers,
so that the angles are the very same numbers. Sizes may be traced.
"""

from __future__ import annotations

from typing import Any


def rotate(x: Any, pairs: Any, head_axis: int) -> Any:
    """``x`` (B, S, H, D) turned by ``pairs`` ([B,] S, D/2, 2); neighbours are one complex number.

    Su et al. 2021 (arXiv:2104.09864, Eq. 34). ``head_axis``: where ``pairs`` lacks the heads.
    """
    import torch

    real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (B, S, H, D/2)
    cos, sin = pairs.unsqueeze(head_axis).unbind(-1)
    turned = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    return torch.stack(turned, dim=-1).flatten(-2).type_as(x)


def table(complex_table: Any) -> Any:
    """A table of complex numbers (N, D/2) as pairs (N, D/2, 2)."""
    import torch

    return torch.view_as_real(complex_table).float().contiguous()


def gather(tables: list[Any], positions: Any) -> Any:
    """Pairs (..., D/2, 2) of integer positions (..., axes), the axes joined."""
    import torch

    return torch.cat([t[positions[..., i]] for i, t in enumerate(tables)], dim=-2)


def grid(rows: Any, columns: Any, device: Any) -> Any:
    """Row and column (N, 2) of every image token, row by row; the numbers may be traced."""
    import torch

    index = torch.arange(rows * columns, device=device)
    return torch.stack([index // columns, index % columns], dim=-1)


def patches(x: Any, rows: Any, columns: Any, p: int) -> Any:
    """Latents (B, C, [1,] h p, w p) as (B, h w, p p C), channel fastest within a patch."""
    x = x.reshape(x.shape[0], x.shape[1], rows, p, columns, p)  # (B, C, h, p, w, p)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (B, N, p p C)


def image_of(tokens: Any, rows: Any, columns: Any, p: int) -> Any:
    """The inverse of ``patches``: (B, C, h p, w p)."""
    x = tokens.reshape(tokens.shape[0], rows, columns, p, p, -1)  # (B, h, w, p, p, C)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
