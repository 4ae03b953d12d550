"""Blur of a camera that moved along a line while the shutter was open."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.degradation import Degradation, draw


@method(identity={"length": (0.0, 0.0)})
class MotionBlur(Degradation):
    """The mean along a line through every pixel, mirrored at the edges.

    Differs from published random trajectories: the path is straight.
    """

    length: tuple[float, float] = param((9.0, 9.0), "of the line in pixels", ge=0, le=200)
    angle: tuple[float, float] = param((0.0, 180.0), "of the line in degrees", ge=-360, le=360)

    def apply(self, image: Any, rng: Any) -> Any:
        """The blurred image, float32."""
        import cv2

        length, angle = draw(self.length, rng), draw(self.angle, rng)
        if length < 0.05:
            return image
        blurred = cv2.filter2D(image, -1, line(length, angle), borderType=cv2.BORDER_REFLECT_101)
        return blurred.reshape(image.shape)


def line(length: float, angle: float) -> Any:
    """A kernel (k, k), k odd, with sum 1: a line of that length (pixels) and angle (degrees)."""
    import math

    import numpy as np

    half = int(length / 2) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    across, down = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
    for place in np.linspace(-length / 2, length / 2, 16 * half + 1):
        x, y = half + place * across, half + place * down
        left, top = int(x), int(y)
        for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):  # spread over four pixels
            for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
                if share_x > 0 and share_y > 0:
                    kernel[row, column] += share_x * share_y
    return kernel / kernel.sum()
