"""Cut and paste in pixels: where each pixel of an edit comes from, and the rough image it makes.

Images are (C, H, W) in [0, 1] as the codec takes them: colours over white, perhaps an opacity.
Offsets are in their pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dit_tools.media.image import Picture

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class CopyPaste:
    """A rough edit: ``pixels``, and the pixel that each came from, ``origin`` (H, W, 2), x first.

    ``placed`` and ``vacated`` (H, W) of 0 and 1: where the thing is now, where it was and is not.
    """

    pixels: np.ndarray
    origin: np.ndarray
    placed: np.ndarray
    vacated: np.ndarray


def affine_map(mask: np.ndarray, right: float, down: float, scale: float) -> np.ndarray:
    """The map (2, 3) from a pixel to where it came from, when what is masked is moved and scaled.

    It grows about its own centre.
    """
    import numpy as np

    rows, columns = np.nonzero(mask > 0.5)
    x, y = (float(v.mean()) if v.size else 0.0 for v in (columns, rows))
    back = 1 / scale
    return np.array([[back, 0, x - back * (x + right)], [0, back, y - back * (y + down)]])


def warp(plane: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) drawn again by such a map, 0 where it came from outside."""
    import cv2

    size = (plane.shape[1], plane.shape[0])
    return cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def moved_mask(mask: np.ndarray, right: float, down: float, scale: float) -> np.ndarray:
    """Where a thing was and where it will be with a margin around it, bool (H, W)."""
    import cv2
    import numpy as np

    there = warp(mask.astype(np.float32), affine_map(mask, right, down, scale)) > 0
    margin = max(min(mask.shape) // 32, 1)
    grown = cv2.dilate(there.astype(np.uint8), np.ones((2 * margin + 1,) * 2, np.uint8))
    return mask | (grown > 0)


def move(pixels: np.ndarray, mask: np.ndarray, right: float, down: float, scale: float) -> CopyPaste:
    """What is masked (H, W) at another place or size; what it leaves is filled from around it."""
    import numpy as np

    matrix = affine_map(mask, right, down, scale)
    thing = warp(np.ascontiguousarray(pixels.transpose(1, 2, 0)), matrix).transpose(2, 0, 1)
    cover = warp(mask.astype(np.float32), matrix)
    ground = _filled(pixels, mask > 0.5)
    placed = (cover > 0.5).astype(np.float32)
    grid = _grid(mask.shape)
    origin = grid @ matrix[:, :2].T + matrix[:, 2]
    return CopyPaste(
        ground + cover * (thing - ground),
        np.where(placed[:, :, None] > 0, origin, grid).astype(np.float32),
        placed,
        ((mask > 0.5) & (placed == 0)).astype(np.float32),
    )


def drag(pixels: np.ndarray, mask: np.ndarray, point: tuple[float, float], right: float, down: float) -> CopyPaste:
    """The surroundings of ``point`` (x, y) pulled along within the mask, which stays in place."""
    import cv2
    import numpy as np

    grid = _grid(mask.shape)
    depth = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    inside = np.clip(depth / max(depth.max() / 2, 1), 0, 1)
    radius = max((right * right + down * down) ** 0.5, min(mask.shape) / 16)
    target = np.array([point[0] + right, point[1] + down])
    near = np.exp(-np.square(grid - target).sum(axis=2) / (2 * radius * radius))
    pull = (near * inside)[:, :, None]
    origin = (grid - pull * np.array([right, down])).astype(np.float32)
    layers = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    drawn = cv2.remap(layers, origin[..., 0], origin[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    placed = (pull[:, :, 0] > 0.5).astype(np.float32)
    return CopyPaste(drawn.transpose(2, 0, 1), origin, placed, placed * 0)


def paste(pixels: np.ndarray, mask: np.ndarray, thing: Picture) -> CopyPaste:
    """Another image, as large as fits into the mask's bounds, in its middle; alpha is kept."""
    import cv2
    import numpy as np

    rows, columns = (np.flatnonzero((mask > 0.5).any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    tall, wide = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    layers = thing.pixels
    if layers.shape[2] == 1:
        layers = np.repeat(layers, 3, axis=2)
    if layers.shape[2] == 3:
        layers = np.concatenate([layers, np.ones_like(layers[:, :, :1])], axis=2)
    fit = min(tall / layers.shape[0], wide / layers.shape[1])
    size = tuple(max(round(side * fit), 1) for side in layers.shape[1::-1])
    layers = cv2.resize(layers, size, interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
    top, left = top + (tall - size[1]) // 2, left + (wide - size[0]) // 2
    made, cover = pixels.copy(), np.zeros(mask.shape, np.float32)
    part = np.s_[top : top + size[1], left : left + size[0]]
    opacity = layers[3] * (mask[part] > 0.5)
    cover[part] = opacity
    new = np.concatenate([layers[:3], np.ones_like(layers[:1])])[: len(pixels)]
    made[:, *part] += opacity * (new - made[:, *part])
    placed = (cover > 0.5).astype(np.float32)
    return CopyPaste(made, _grid(mask.shape).astype(np.float32), placed, placed * 0)


def to_cells(plane: np.ndarray, stride: int) -> np.ndarray:
    """A plane of 0 and 1 on a grid ``stride`` times as coarse: 1 where it covers any of a cell."""
    import numpy as np

    rows, columns = plane.shape[0] // stride, plane.shape[1] // stride
    parts = plane.reshape(rows, stride, columns, stride)
    return (parts.max(axis=(1, 3)) > 0.5).astype(np.float32)


def cell_origins(origin: np.ndarray, stride: int) -> np.ndarray:
    """Where cells of such a grid come from, in cells: (h, w, 2), x first."""
    centre = origin[stride // 2 :: stride, stride // 2 :: stride]
    return (centre + 0.5) / stride - 0.5


def _grid(shape: tuple[int, ...]) -> np.ndarray:
    import numpy as np

    rows, columns = np.indices(shape[:2])
    return np.stack([columns, rows], axis=2).astype(np.float64)


def _filled(pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Every layer with the hole filled from its border (Telea 2004)."""
    import cv2
    import numpy as np

    if hole.all() or not hole.any():
        return pixels.copy()
    grown = cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8))
    return np.stack([cv2.inpaint(np.ascontiguousarray(layer), grown, 3, cv2.INPAINT_TELEA) for layer in pixels]).clip(
        0, 1
    )
