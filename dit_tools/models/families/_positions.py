"""Other positions for transformers that look them up in tables: two forms that families share.

See ``core.blocks.PositionSpec``.
"""

from __future__ import annotations

from typing import Any

SINE_BASE = 10000.0


def rescale_rotary_tables(how: Any, model: Any, compute: Any, args: Any, kwargs: Any) -> Any:
    """Lumina2 and Z-Image look factors up in a table per axis; text is the first axis."""
    import torch

    from dit_tools.nn.positions import frequencies, unit_complex

    embed = model.rope_embedder
    kept = embed.freqs_cis
    dims = getattr(embed, "axes_dim", None) or embed.axes_dims
    dtype = torch.complex64 if kept is None else kept[0].dtype
    device = torch.device("cpu") if kept is None else kept[0].device
    made = []
    for axis, dim in enumerate(dims):
        count = max(embed.axes_lens[axis], how.grid[axis - 1] if axis else 0)
        places = torch.arange(count, device=device)
        if axis:
            angles = how.angles(axis - 1, places, dim, embed.theta)
        else:
            angles = torch.outer(places.double(), frequencies(dim, embed.theta, device))
        made.append(unit_complex(angles, dtype) * how.length)
    embed.freqs_cis = made
    try:
        return compute()
    finally:
        embed.freqs_cis = kept


def rescale_sine_table(how: Any, model: Any, compute: Any, args: Any, kwargs: Any) -> Any:
    """PixArt and SD3 add a table of sines: the first half for columns, the second for rows.

    SD3 cuts the middle out of a larger table; there the middle keeps its embedding.
    """
    import torch

    from dit_tools.nn.positions import frequencies

    embed = model.pos_embed
    kept, table = embed.pos_embed, embed.pos_embed_max_size
    embed.pos_embed = None
    try:
        latents = compute()  # (B, N, D)
    finally:
        embed.pos_embed = kept
    step = embed.base_size / (table or how.native[0]) / embed.interpolation_scale
    dim, halves = kept.shape[-1] // 2, []
    for axis in (1, 0):
        count = how.grid[axis]
        first = (table - count) // 2 if table else 0
        middle = table / 2 * step if table else 0.0
        places = (first + torch.arange(count, device=latents.device)) * step
        angles = how.angles(axis, places - middle, dim, SINE_BASE)
        angles = angles + middle * frequencies(dim, SINE_BASE, latents.device)
        sines = torch.cat([angles.sin(), angles.cos()], 1)  # (n, D / 2)
        shape = (count, 1, -1) if axis == 0 else (1, count, -1)
        halves.append(sines.reshape(shape).expand(*how.grid, -1))
    made = torch.cat(halves, 2).flatten(0, 1)[None]
    return (latents + made.to(latents.dtype)).to(latents.dtype)
