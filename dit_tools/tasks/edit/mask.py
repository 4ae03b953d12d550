"""What may change: a mask file or a box, at the image's size and at the latents'."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dit_tools.core.errors import InputError, UsageError
from dit_tools.media import image
from dit_tools.media.crop import CropBox

if TYPE_CHECKING:
    import numpy as np

_BOX = re.compile(r"\s*(-?\d{1,6})\s*,\s*(-?\d{1,6})\s*,\s*(\d{1,6})\s*,\s*(\d{1,6})\s*")
_NUMBERS = re.compile(r"[\s,;x.\d-]*,[\s,;x.\d-]*")


def read_mask(text: str, size: tuple[int, int], notes: list[str]) -> np.ndarray:
    """The mask of ``--mask``, bool (H, W), True = change.

    Args:
        text: an image, white = change, or a box ``LEFT,TOP,WIDTH,HEIGHT`` in pixels.
        size: height and width of the image.
        notes: gets a word on what was fixed: another size, grey values.

    Raises:
        InputError: an unreadable mask, or one of another shape.
        UsageError: a box outside the image.
    """
    import numpy as np

    box = _BOX.fullmatch(text)
    if box:
        left, top, width, height = (int(part) for part in box.groups())
        made = np.zeros(size, dtype=bool)
        made[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
        if not made.any():
            raise UsageError(
                f"--mask {text}: outside the image of {size[1]}x{size[0]}", "give LEFT,TOP,WIDTH,HEIGHT in pixels"
            )
        return made
    if _NUMBERS.fullmatch(text):
        raise UsageError(f"--mask {text[:40]}: no box", "give LEFT,TOP,WIDTH,HEIGHT in pixels, such as 0,0,64,32")
    return _fitted(text, _levels(text), size, notes)


def _levels(path: str) -> np.ndarray:
    """Whiteness of a mask file, (H, W) in [0, 1]; transparent counts as black."""
    picture = image.read(path)
    pixels = picture.pixels
    levels = pixels[:, :, :3].mean(axis=2)
    return levels * pixels[:, :, 3] if picture.alpha else levels


def _fitted(path: str, levels: np.ndarray, size: tuple[int, int], notes: list[str]) -> np.ndarray:
    import cv2
    import numpy as np

    grey = np.any((levels > 0.1) & (levels < 0.9))
    if levels.shape != size:
        (height, width), (rows, columns) = size, levels.shape
        if abs(rows * width - columns * height) > max(rows, columns, height, width):
            raise InputError(
                f"{path}: a mask of {columns}x{rows} for an image of {width}x{height}", "give one of the same shape"
            )
        notes.append(f"mask scaled from {columns}x{rows}")
        levels = cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR)
    if grey:
        notes.append("mask is not black and white: cut at half")
    return levels >= 0.5


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what is True."""
    import numpy as np

    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def latent_mask(mask: np.ndarray, frame: CropBox, shape: tuple[int, ...], patch: int) -> np.ndarray:
    """The mask at the latents' size, float32 (1, 1, h, w): 1 in tokens with a pixel to change."""
    import numpy as np

    seen = frame.cut(mask.astype(np.float32)[:, :, None])[:, :, 0] > 0
    rows, columns = shape[1] // patch, shape[2] // patch
    cells = seen.reshape(rows, seen.shape[0] // rows, columns, seen.shape[1] // columns)
    tokens = cells.any(axis=(1, 3)).repeat(patch, axis=0).repeat(patch, axis=1)
    return tokens[None, None].astype(np.float32)


def weights(mask: np.ndarray, feather: int) -> np.ndarray:
    """How much of the edit each pixel gets, float32 (H, W): rises inside the mask, 0 outside."""
    import cv2
    import numpy as np

    if feather <= 0 or mask.all():
        return mask.astype(np.float32)
    depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    return np.clip(depth / np.float32(feather + 1), 0, 1).astype(np.float32)
