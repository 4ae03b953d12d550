"""An image of any size as the model sees it, and the way back to its own pixels.

A frame is a rectangle of the image, in the shape of the model's size; where it reaches over the
image's edge, the edge is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

WHITE = 0.98  # every channel above it


@dataclass(frozen=True)
class CropBox:
    """Rows ``top .. top + height`` and columns ``left .. left + width`` of an image of ``size``.

    ``size`` is (height, width) of the image, ``model`` that of the model's images; all in
    pixels. ``top`` and ``left`` may be negative.
    """

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]
    model: tuple[int, int]

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """The frame's part of ``pixels`` (H, W, C) at the model's size: (h, w, C)."""
        import cv2

        (top, bottom), (left, right) = self._inside(0), self._inside(1)
        part = pixels[top:bottom, left:right]
        shrinks = self.height > self.model[0] or self.width > self.model[1]
        way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        if (self.height, self.width) == self.model and part.shape[:2] == self.model:
            return part
        # The part inside is resized first and padded after, so that a thin image of many
        # megapixels does not become a square of them.
        rows, columns = self._scaled(part.shape[:2])
        small = cv2.resize(part, (columns, rows), interpolation=way).reshape(rows, columns, -1)
        above = min(round((top - self.top) * self.model[0] / self.height), self.model[0] - rows)
        before = min(round((left - self.left) * self.model[1] / self.width), self.model[1] - columns)
        sides = (above, self.model[0] - rows - above, before, self.model[1] - columns - before)
        return cv2.copyMakeBorder(small, *sides, cv2.BORDER_REPLICATE).reshape(*self.model, -1)

    def back(self, pixels: np.ndarray) -> tuple[np.ndarray, slice, slice]:
        """Pixels (h, w, C) of the model's size at the image's, and the rows and columns there."""
        import cv2

        (top, bottom), (left, right) = self._inside(0), self._inside(1)
        if (self.height, self.width) == self.model == (bottom - top, right - left):
            return pixels, slice(top, bottom), slice(left, right)
        rows, columns = self._scaled((bottom - top, right - left))
        above = min(round((top - self.top) * self.model[0] / self.height), self.model[0] - rows)
        before = min(round((left - self.left) * self.model[1] / self.width), self.model[1] - columns)
        part = pixels[above : above + rows, before : before + columns]
        shrinks = bottom - top < rows
        way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        grown = cv2.resize(part, (right - left, bottom - top), interpolation=way)
        grown = grown.reshape(bottom - top, right - left, -1).clip(0, 1)
        return grown, slice(top, bottom), slice(left, right)

    def _inside(self, axis: int) -> tuple[int, int]:
        start, length = ((self.top, self.height), (self.left, self.width))[axis]
        return max(start, 0), min(start + length, self.size[axis])

    def _scaled(self, part: tuple[int, ...]) -> tuple[int, int]:
        return (
            min(max(round(part[0] * self.model[0] / self.height), 1), self.model[0]),
            min(max(round(part[1] * self.model[1] / self.width), 1), self.model[1]),
        )


def whole_image(size: tuple[int, int], model: tuple[int, int]) -> CropBox:
    """The smallest frame in the model's shape around a whole image, which lies in its middle."""
    height, width = size
    tall = max(height, -(-width * model[0] // model[1]))
    wide = max(width, -(-height * model[1] // model[0]))
    return CropBox(-((tall - height) // 2), -((wide - width) // 2), tall, wide, size, model)


def crop_around(box: tuple[int, int, int, int], size: tuple[int, int], model: tuple[int, int]) -> CropBox:
    """The frame for a change within ``box`` (top, left, bottom, right): it and as much around it.

    The whole image where that is not larger than the model's size, or where the box fills it.
    """
    everything = whole_image(size, model)
    top, left, bottom, right = box
    height = max(2 * (bottom - top), model[0])
    width = max(2 * (right - left), model[1])
    height, width = (max(height, -(-width * model[0] // model[1])), max(width, -(-height * model[1] // model[0])))
    if height >= everything.height:
        return everything
    start = [
        min(max((low + high) // 2 - length // 2, 0), max(side - length, 0))
        for low, high, length, side in ((top, bottom, height, size[0]), (left, right, width, size[1]))
    ]
    return CropBox(start[0], start[1], height, width, size, model)


def to_model(layers: np.ndarray, alpha: bool) -> np.ndarray:
    """Layers (h, w, 1, 3 or 4) in [0, 1] as the codec takes them, (1, 3 or 4, h, w) float32.

    Colours are composited over white; with ``alpha`` the opacity comes as fourth channel. White
    around the thing that an opaque image shows counts as transparent there, which leaves its
    colours over white as they are, and is what such a model was trained on.
    """
    import numpy as np

    colours = np.repeat(layers, 3, axis=2) if layers.shape[2] == 1 else layers[:, :, :3]
    opacity = layers[:, :, 3:] if layers.shape[2] == 4 else np.ones_like(layers[:, :, :1])
    if alpha and layers.shape[2] != 4:
        opacity = 1 - _surrounding_white(colours)
    over_white = colours * opacity + (1 - opacity)
    made = np.concatenate([over_white, opacity], axis=2) if alpha else over_white
    return np.ascontiguousarray(made.clip(0, 1).transpose(2, 0, 1)[None], dtype=np.float32)


def _surrounding_white(colours: np.ndarray) -> np.ndarray:
    """1 where white is joined to the border of (h, w, 3) by white, else 0; (h, w, 1)."""
    import cv2
    import numpy as np

    white = (colours.min(axis=2) > WHITE).astype(np.uint8)
    _, regions = cv2.connectedComponents(white, connectivity=4)
    edges = (regions[0], regions[-1], regions[:, 0], regions[:, -1])
    outside = np.setdiff1d(np.concatenate(edges), [0])
    return np.isin(regions, outside).astype(colours.dtype)[:, :, None]


def remove_white(over_white: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Colours (h, w, 3) with the white taken out again; white where ``opacity`` (h, w, 1) is 0."""
    import numpy as np

    colours = (over_white - (1 - opacity)) / np.maximum(opacity, 1 / 255)
    return np.where(opacity > 0, colours, 1).clip(0, 1)
