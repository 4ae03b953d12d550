"""Tiles: a large image through a network piece by piece, so that memory does not grow with it.

A tile is read with an overlap on every side that lies inside the image, and only its inner part is
kept. Where the overlap is at least the network's receptive field, the kept pixels are those that
the network computes for the whole image: nothing is blended, and there is no seam to hide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """A part of an image, in pixels of the image.

    ``read`` and ``keep``: (top, bottom, left, right) of what the network sees and of what is kept;
    ``keep`` lies within ``read``.
    """

    read: tuple[int, int, int, int]
    keep: tuple[int, int, int, int]

    @property
    def seen(self) -> tuple[slice, slice]:
        """The rows and columns to read."""
        return slice(*self.read[:2]), slice(*self.read[2:])

    def kept(self, scale: int = 1) -> tuple[slice, slice]:
        """The rows and columns of the result that this tile fills."""
        top, bottom, left, right = (scale * each for each in self.keep)
        return slice(top, bottom), slice(left, right)

    def inner(self, scale: int = 1) -> tuple[slice, slice]:
        """The kept rows and columns within the network's result for this tile."""
        top, left = self.read[0], self.read[2]
        rows = slice(scale * (self.keep[0] - top), scale * (self.keep[1] - top))
        return rows, slice(scale * (self.keep[2] - left), scale * (self.keep[3] - left))


def plan(height: int, width: int, tile: int, overlap: int, multiple: int = 1) -> Iterator[Tile]:
    """Tiles that cover an image, each pixel kept exactly once.

    Args:
        height: of the image; with ``multiple`` > 1 a multiple of it.
        width: the same.
        tile: side of the kept part of a tile in pixels; 0 for a single tile.
        overlap: pixels read around it.
        multiple: every edge of ``read`` is a multiple of it, as networks with strides need.
    """
    side = _up(tile, multiple) if tile else max(height, width)
    around = _up(overlap, multiple)
    for top in range(0, height, side):
        for left in range(0, width, side):
            bottom, right = min(top + side, height), min(left + side, width)
            read = (
                max(top - around, 0), min(bottom + around, height),
                max(left - around, 0), min(right + around, width),
            )  # fmt: skip
            yield Tile(read, (top, bottom, left, right))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
