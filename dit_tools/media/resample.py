"""Enlarging and reducing arrays of an image, in floating point."""

from __future__ import annotations

from typing import Any


def cubic(image: Any, size: tuple[int, int]) -> Any:
    """Cubic interpolation without antialiasing (a = -0.75, edges repeated), for enlarging.

    Args:
        image: (H, W, C) or (H, W), float32.
        size: height and width of the result.

    Returns:
        float32 with as many axes as ``image``; values may leave its range.
    """
    import cv2

    height, width = size
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC).reshape((height, width, *image.shape[2:]))
