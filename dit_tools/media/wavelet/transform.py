"""The fixed transform of the wavelet codec: RGB to YCbCr, then the biorthogonal 9/7 wavelet.

The wavelet is the irreversible filter pair of Cohen, Daubechies and Feauveau that JPEG 2000 uses
(ITU-T T.800, annex F), computed by lifting with symmetric extension, so that any height and width
from one up works. Both directions are scaled so that a coefficient's error is about the error it
causes in the image. Floating point is harmless here: only the quantised integers are coded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA, BETA, GAMMA, DELTA = -1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852
SCALE = 1.149604398860241  # makes the low pass filter's gain the square root of two
ORIENTATIONS = ("hl", "lh", "hh")
"""Subbands of a level: high horizontally, high vertically, high in both directions."""

TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def levels_for(height: int, width: int) -> int:
    """How often a tile of that size is halved: until its shorter side would fall below six."""
    count, side = 0, min(height, width)
    while count < 7 and side >= 12:
        count, side = count + 1, (side + 1) // 2
    return count


def to_ycbcr(image: NDArray) -> NDArray:
    """Planes (3, height, width) in float32, luma first, centred at 0; from uint8 (h, w, 3)."""
    import numpy as np

    matrix = np.asarray(TO_YCBCR, np.float32)
    planes = np.moveaxis(image.astype(np.float32) @ matrix.T, -1, 0).copy()
    planes[0] -= 128.0
    return planes


def to_rgb(planes: NDArray) -> NDArray:
    """The inverse of :func:`to_ycbcr` before rounding: float32 (height, width, 3) about 0..255."""
    import numpy as np

    matrix = np.asarray(TO_RGB, np.float32)
    return (np.moveaxis(planes, 0, -1) @ matrix.T) + np.float32(128.0)


def forward(planes: NDArray, levels: int) -> tuple[NDArray, list[tuple[NDArray, ...]]]:
    """Subbands of planes (3, height, width).

    Returns:
        The low pass band and, from the coarsest level to the finest, its ``hl, lh, hh`` bands;
        all float32 with the channels first.
    """
    low, details = planes, []
    for _ in range(levels):
        top, bottom = _analyse(low, axis=1)
        low, hl = _analyse(top, axis=2)
        lh, hh = _analyse(bottom, axis=2)
        details.append((hl, lh, hh))
    return low, details[::-1]


def inverse(low: NDArray, details: list[tuple[NDArray, ...]]) -> NDArray:
    """The planes whose subbands these are; fewer levels than coded give a smaller image.

    The low pass band of a level that is left out is ``2 ** levels left out`` times as bright.
    """
    for hl, lh, hh in details:
        low = _synthesise(_synthesise(low, hl, axis=2), _synthesise(lh, hh, axis=2), axis=1)
    return low


def _analyse(x: NDArray, axis: int) -> tuple[NDArray, NDArray]:
    import numpy as np

    x = np.moveaxis(x, axis, 0)
    even, odd = x[0::2].astype(np.float32), x[1::2].astype(np.float32)
    if len(odd):
        _lift(odd, even, ALPHA, following=True)
        _lift(even, odd, BETA, following=False)
        _lift(odd, even, GAMMA, following=True)
        _lift(even, odd, DELTA, following=False)
        even *= np.float32(SCALE)
        odd *= np.float32(1 / SCALE)
    return np.moveaxis(even, 0, axis), np.moveaxis(odd, 0, axis)


def _synthesise(even: NDArray, odd: NDArray, axis: int) -> NDArray:
    import numpy as np

    even, odd = np.moveaxis(even, axis, 0), np.moveaxis(odd, axis, 0)
    out = np.empty((len(even) + len(odd), *even.shape[1:]), np.float32)
    if len(odd):
        even, odd = even * np.float32(1 / SCALE), odd * np.float32(SCALE)
        _lift(even, odd, -DELTA, following=False)
        _lift(odd, even, -GAMMA, following=True)
        _lift(even, odd, -BETA, following=False)
        _lift(odd, even, -ALPHA, following=True)
    out[0::2], out[1::2] = even, odd
    return np.moveaxis(out, 0, axis)


def _lift(target: NDArray, source: NDArray, factor: float, following: bool) -> None:
    """Add ``factor`` times the two neighbours' sum in place, mirrored at the ends (axis 0).

    Odd samples have the even ones of the same and the following index as neighbours, even samples
    the odd ones of the previous and the same index.
    """
    import numpy as np

    weight, count = np.float32(factor), len(target)
    if following:
        inner = min(count, len(source) - 1)
        target[:inner] += weight * (source[:inner] + source[1 : inner + 1])
        if inner < count:
            target[inner:] += 2 * weight * source[-1:]
        return
    inner = min(count, len(source))
    target[0:1] += 2 * weight * source[0:1]
    target[1:inner] += weight * (source[: inner - 1] + source[1:inner])
    if inner < count:
        target[inner:] += 2 * weight * source[-1:]
