"""How near a decoded image is to its source."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import NDArray

EQUAL = 200.0
"""Decibels that are said of equal images, as JSON has no infinity."""


def psnr(a: NDArray, b: NDArray) -> float:
    """PSNR in dB of two uint8 images of equal shape."""
    import numpy as np

    squared = total = 0
    for start in range(0, len(a), 256):  # rows, so that large images need little memory
        part = a[start : start + 256].astype(np.int32) - b[start : start + 256]
        squared, total = squared + int((part * part).sum(dtype=np.int64)), total + part.size
    return round(min(EQUAL, 10 * math.log10(255**2 * total / squared)), 3) if squared else EQUAL


def ms_ssim(a: NDArray, b: NDArray) -> float | None:
    """MS-SSIM of two uint8 images (height, width, 3); None where a side has under 161 pixels."""
    import numpy as np

    from dit_tools.methods.metrics.ms_ssim import SHORTEST, MsSsim

    if min(a.shape[:2]) <= SHORTEST:
        return None
    x, y = (np.moveaxis(image, -1, 0)[None] / np.float32(255) for image in (a, b))
    return round(float(MsSsim().of(x, y)[0]), 5)
