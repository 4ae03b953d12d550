"""Helpers: the low band of a wavelet transform, and images made larger. numpy and Pillow."""

from __future__ import annotations

import functools
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UsageError

FILTERS = {
    "haar": (2**-0.5, 2**-0.5),
    "db4": (
        0.23037781330885523,
        0.7148465705525415,
        0.6308807679295904,
        -0.02798376941698385,
        -0.18703481171888114,
        0.030841381835986965,
        0.032883011666982945,
        -0.010597401784997278,
    ),
}
"""Low-pass filters of orthogonal wavelets (Daubechies 1988, Table 1)."""


@functools.cache
def _low(length: int, wave: str, level: int) -> Any:
    """Analysis of ``length`` samples, periodic: (length / 2^level, length), orthonormal rows."""
    import numpy as np

    made = np.eye(length)
    for _ in range(level):
        count = made.shape[0]
        step = np.zeros((count // 2, count))
        for row in range(count // 2):
            for tap, weight in enumerate(FILTERS[wave]):
                step[row, (2 * row + tap) % count] += weight
        made = step @ made
    return made


def with_low_band(pixels: Array, guide: Array, wave: str, level: int) -> Array:
    """``pixels`` (B, C, H, W) with the low band of ``guide``: inverse of LL(guide), H(pixels).

    For an orthogonal wavelet with analysis L of each axis that is
    ``y + L' L (g - y) L' L``. Raises UsageError for sides that are no multiple of ``2^level``.
    """
    height, width = pixels.shape[-2:]
    if height % 2**level or width % 2**level:
        raise UsageError(
            f"--highres diffusehigh: {width}x{height} cannot be halved {level} times", "use a smaller level"
        )
    rows, columns = (_low(n, wave, level) for n in (height, width))
    gap = (guide - pixels).astype("float64")
    low = rows.T @ (rows @ gap @ columns.T) @ columns
    return (pixels + low).astype(pixels.dtype)


def resize_bicubic(pixels: Array, size: tuple[int, int]) -> Array:
    """Images (B, C, H, W) at another size, bicubic."""
    import numpy as np
    from PIL import Image

    height, width = size
    flat = pixels.reshape(-1, *pixels.shape[2:]).astype(np.float32)
    made = [np.asarray(Image.fromarray(x).resize((width, height), Image.Resampling.BICUBIC)) for x in flat]
    return np.stack(made).reshape(*pixels.shape[:2], height, width)


def sharpen(pixels: Array, strength: float) -> Array:
    """``g + strength (g - blur(g))``, in [0, 1]; the blur has taps 1 4 6 4 1."""
    import numpy as np

    if strength == 0:
        return pixels
    blurred = pixels
    for axis in (2, 3):
        pad = [(2, 2) if i == axis else (0, 0) for i in range(4)]
        padded = np.pad(blurred, pad, mode="edge")
        count = pixels.shape[axis]
        shifted = [np.take(padded, range(i, i + count), axis) for i in range(5)]
        blurred = sum(w / 16 * x for w, x in zip((1, 4, 6, 4, 1), shifted, strict=True))
    return (pixels + strength * (pixels - blurred)).clip(0, 1).astype(pixels.dtype)
