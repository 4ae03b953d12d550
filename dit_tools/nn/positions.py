"""Other positions for a diffusers transformer while a context lasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dit_tools.core.errors import UnsupportedError
from dit_tools.core.run import RunState
from dit_tools.nn.attention_product import Product, attending
from dit_tools.nn.hooks import around_forward

Axis = Callable[[int, float], Sequence[float]]
"""``axis(channels, base)``: the frequencies of an axis, one per pair of channels."""
SINE_BASE = 10000.0


@dataclass(frozen=True)
class Rescaling:
    """Frequencies of rows and columns of a ``grid`` for a model made for ``native``.

    ``length``: what rotary factors are multiplied by.
    """

    grid: tuple[int, int]
    native: tuple[int, int]
    axes: tuple[Axis, Axis]
    length: float

    def angles(self, which: int, positions: Tensor, dim: int, base: float) -> Tensor:
        """Angles (n, dim / 2) of an axis (0 rows, 1 columns) in float64."""
        frequencies = self.axes[which](dim, base)
        made = torch.tensor(frequencies, dtype=torch.float64, device=positions.device)
        return torch.outer(positions.double(), made)


def rescaled(
    transformer: Any,
    grid: tuple[int, int],
    native: tuple[int, int],
    axes: tuple[Axis, Axis],
    length: float,
    option: str,
) -> AbstractContextManager[None]:
    """Inside the context positions of image tokens have the frequencies of ``axes``.

    Raises UnsupportedError for a transformer without positions, or of an unknown class.
    """
    kind = type(transformer).__name__
    if kind not in POSITIONS:
        raise UnsupportedError(f"{option}: {kind} has no positions that can be rescaled", "leave it out")
    hooked, around = POSITIONS[kind]
    module = getattr(transformer, hooked) if hooked else transformer
    how = Rescaling(grid, native, axes, length)

    def stand_in(_: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return around(how, transformer, compute, args, kwargs)

    return around_forward([module], stand_in, "dit_positions")


def sharpened(blocks: Sequence[Any], run: RunState, factor: float, option: str) -> AbstractContextManager[None]:
    """Inside the context attention logits over image tokens are multiplied by ``factor``."""

    def replace(_: int, product: Product) -> Tensor:
        return product.plain(product.q * factor, product.k, product.v, product.mask)

    return attending(blocks, lambda: run.grid[0] * run.grid[1], replace, option, "dit_sharper_attention")


def _flux(how: Rescaling, model: Any, compute: Any, args: Any, kwargs: Any) -> Any:
    """Positions (S, 3) of text and image: cos and sin (S, d), each angle twice."""
    ids = kwargs["ids"] if "ids" in kwargs else args[0]
    embed, angles = model.pos_embed, []
    for axis, dim in enumerate(embed.axes_dim):
        if axis:
            angles.append(how.angles(axis - 1, ids[:, axis], dim, embed.theta))
        else:
            angles.append(torch.outer(ids[:, 0].double(), _plain(dim, embed.theta, ids.device)))
    both = torch.cat(angles, 1).repeat_interleave(2, 1)
    return (both.cos() * how.length).float(), (both.sin() * how.length).float()


def _qwen(how: Rescaling, model: Any, compute: Any, args: Any, kwargs: Any) -> Any:
    """Complex factors (N, d / 2) of the image, whose rows and columns count from the middle."""
    image, text = compute()
    embed, (rows, columns) = model.pos_embed, how.grid
    frame = embed.axes_dim[0] // 2
    parts = [image[:, :frame].reshape(rows, columns, frame)]
    for axis, count in enumerate(how.grid):
        places = torch.arange(count, device=image.device) - (count - count // 2)
        places = places if embed.scale_rope else places + count - count // 2
        turn = _turned(how.angles(axis, places, embed.axes_dim[axis + 1], embed.theta), image.dtype)
        shape = (rows, 1, -1) if axis == 0 else (1, columns, -1)
        parts.append(turn.reshape(shape).expand(rows, columns, -1))
    made = torch.cat(parts, 2).reshape(rows * columns, -1)
    return made * how.length, text * how.length


def _tables(how: Rescaling, model: Any, compute: Any, args: Any, kwargs: Any) -> Any:
    """Lumina2 and Z-Image look factors up in a table per axis; text is the first axis."""
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
            angles = torch.outer(places.double(), _plain(dim, embed.theta, device))
        made.append(_turned(angles, dtype) * how.length)
    embed.freqs_cis = made
    try:
        return compute()
    finally:
        embed.freqs_cis = kept


def _sines(how: Rescaling, model: Any, compute: Any, args: Any, kwargs: Any) -> Any:
    """PixArt and SD3 add a table of sines: the first half for columns, the second for rows.

    SD3 cuts the middle out of a larger table; there the middle keeps its embedding.
    """
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
        angles = angles + middle * _plain(dim, SINE_BASE, latents.device)
        sines = torch.cat([angles.sin(), angles.cos()], 1)  # (n, D / 2)
        shape = (count, 1, -1) if axis == 0 else (1, count, -1)
        halves.append(sines.reshape(shape).expand(*how.grid, -1))
    made = torch.cat(halves, 2).flatten(0, 1)[None]
    return (latents + made.to(latents.dtype)).to(latents.dtype)


def _plain(dim: int, base: float, device: Any) -> Tensor:
    steps = torch.arange(0, dim, 2, dtype=torch.float64, device=device)
    return 1.0 / base ** (steps / dim)


def _turned(angles: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.polar(torch.ones_like(angles), angles).to(dtype)


POSITIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "FluxTransformer2DModel": ("pos_embed", _flux),
    "QwenImageTransformer2DModel": ("pos_embed", _qwen),
    "Lumina2Transformer2DModel": ("", _tables),
    "ZImageTransformer2DModel": ("", _tables),
    "PixArtTransformer2DModel": ("pos_embed", _sines),
    "SD3Transformer2DModel": ("pos_embed", _sines),
}
"""Transformer class -> the attribute whose forward is hooked, itself if empty, and by what."""
