"""A network over a photograph in tiles: samples in, samples out, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dit_tools.media.resample import cubic
from dit_tools.media.samples import fill_transparent, to_float, to_samples
from dit_tools.media.tiles import Tile, plan
from dit_tools.models.photo import PhotoModel

if TYPE_CHECKING:
    import numpy as np


def enlarge(model: PhotoModel, samples: np.ndarray, scale: int, strength: float, tile: int, bits: int) -> np.ndarray:
    """A photograph ``scale`` times as high and as wide.

    Args:
        model: of ``superres``.
        samples: (H, W, 1, 3 or 4), uint8 or uint16. Colour goes through the network, alpha through
            cubic interpolation; the colours of fully transparent pixels are those of the nearest
            visible ones, so that they leave no fringe.
        scale: one of ``model.scales``.
        strength: factor of what the network adds; 0 is the cubic enlargement.
        tile: side of a tile in pixels of ``samples``; 0 for the whole image at once.
        bits: of the result, 8 or 16.
    """
    import numpy as np

    height, width, channels = samples.shape
    made = np.empty((scale * height, scale * width, channels), np.uint8 if bits == 8 else np.uint16)
    colours = fill_transparent(samples) if channels == 4 else samples
    for part in plan(height, width, tile, model.overlap, model.multiple):
        seen = to_float(colours[part.seen])
        base = cubic(seen, (scale * seen.shape[0], scale * seen.shape[1]))[part.inner(scale)]
        if strength:
            base = base + np.float32(strength) * _residual(model, seen, scale, part)
        target = made[part.kept(scale)]
        target[:, :, : colours.shape[2]] = to_samples(base, bits)
        if channels == 4:
            opacity = to_float(samples[..., 3:][part.seen])
            grown = cubic(opacity, (scale * seen.shape[0], scale * seen.shape[1]))
            target[:, :, 3:] = to_samples(grown[part.inner(scale)], bits)
    return made


def repair(model: PhotoModel, samples: np.ndarray, strength: float, tile: int) -> np.ndarray:
    """A photograph with what the network adds to it, at its own size and depth.

    Alpha stays as it is, and so do the colours of fully transparent pixels. ``strength`` 0 gives
    the samples themselves, bit for bit. For the other arguments see ``enlarge``.
    """
    import numpy as np

    height, width, channels = samples.shape
    colours = fill_transparent(samples) if channels == 4 else samples
    more = [(0, -side % model.multiple) for side in (height, width)]
    padded = np.pad(colours, (*more, (0, 0)), "edge") if any(after for _, after in more) else colours
    made, bits = samples.copy(), 8 * samples.dtype.itemsize
    if strength == 0:
        return made
    for part in plan(padded.shape[0], padded.shape[1], tile, model.overlap, model.multiple):
        seen = to_float(padded[part.seen])
        better = seen[part.inner()] + np.float32(strength) * _residual(model, seen, 1, part)
        target = made[part.kept()][:, :, : colours.shape[2]]
        target[:] = to_samples(better[: target.shape[0], : target.shape[1]], bits)
    if channels == 4:
        hidden = samples[:, :, 3] == 0
        made[hidden] = samples[hidden]
    return made


def _residual(model: PhotoModel, seen: np.ndarray, scale: int, part: Tile) -> Any:
    """The network's result for the kept part of a tile; grey in, grey out."""
    grey = seen.shape[2] == 1
    image = seen.repeat(3, axis=2) if grey else seen
    residual = model.residual(image, scale)[part.inner(scale)]
    return residual.mean(axis=2, keepdims=True) if grey else residual
