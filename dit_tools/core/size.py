"""The size of images and videos."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Height and width in pixels, and the number of frames, which is 1 for an image."""

    height: int
    width: int
    frames: int = 1

    @classmethod
    def square(cls, side: int) -> Size:
        """An image of ``side`` x ``side`` pixels."""
        return cls(side, side)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def __str__(self) -> str:
        """As the command line writes it: ``WIDTHxHEIGHT``."""
        return f"{self.width}x{self.height}"
