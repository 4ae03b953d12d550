"""Photographs as whole-number samples, which take a quarter of the memory of floats.

``Photo`` keeps what belongs to a file next to its pixels, so that a tool that changes the pixels
gives back the same depth, channels, colour profile and EXIF.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dit_tools.media.image import DEEP, encode, read

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    import numpy as np

ROWS = 256  # converted at a time


@dataclass
class Photo:
    """A photograph in memory.

    ``samples``: (H, W, C), uint8 or uint16, C = 1 grey, 3 colour, 4 colour and
    straight alpha. ``icc``, ``exif``, ``note``: as in ``image.Picture``.
    """

    samples: np.ndarray
    icc: bytes | None
    exif: bytes | None
    note: str

    @property
    def bits(self) -> int:
        """Bits of a sample: 8 or 16."""
        return 8 * self.samples.dtype.itemsize

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.samples.shape[0], self.samples.shape[1]


def load(source: str | Path) -> Photo:
    """Read a photograph; float files become 16 bits. Raises what ``image.read`` raises."""
    image = read(source)
    samples = to_samples(image.pixels, 8 if image.bits == 8 else 16)
    return Photo(samples, image.icc, image.exif, image.note)


def store(photo: Photo, format: str, quality: int | None, record: dict[str, Any] | None) -> bytes:
    """The photograph as the bytes of a file; 16 bits become 8 where the format has no more.

    Raises what ``image.encode`` raises, such as UsageError for transparency in a JPEG.
    """
    bits = photo.bits if format in DEEP else 8
    samples = photo.samples if photo.bits == bits else to_samples(to_float(photo.samples), bits)
    return encode(
        samples, format, bits=bits, quality=quality, record=record, origin="enhanced",
        icc=photo.icc, exif=photo.exif,
    )  # fmt: skip


def to_samples(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Float pixels (H, W, C) as samples, clipped to [0, 1] and rounded, in bands of rows."""
    import numpy as np

    top = np.float32((1 << bits) - 1)
    made = np.empty(pixels.shape, np.uint8 if bits == 8 else np.uint16)
    for start in range(0, len(pixels), ROWS):
        band = pixels[start : start + ROWS].clip(0, 1)
        band *= top
        made[start : start + ROWS] = np.rint(band, out=band)
    return made


def to_float(samples: np.ndarray) -> np.ndarray:
    """Samples (H, W, C) as float32 in [0, 1]."""
    import numpy as np

    scaled = samples.astype(np.float32)
    scaled /= np.float32(np.iinfo(samples.dtype).max)
    return scaled


def fill_transparent(samples: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) of colour and alpha, continued into what is fully transparent.

    Programs leave anything there, often black, and a network or filter would draw it into the
    visible edge. Colours of visible pixels stay as they are.
    """
    import cv2
    import numpy as np

    colours, alpha = samples[:, :, :3].copy(), samples[:, :, 3]
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colours
    weight = alpha.astype(np.float32)
    for sigma in (32.0, 8.0, 2.0):  # near colours last, so that they win where they reach
        spread = cv2.GaussianBlur(weight, (0, 0), sigma)
        reached = hidden & (spread > 1e-3)
        for channel in range(3):
            mean = cv2.GaussianBlur(colours[:, :, channel].astype(np.float32) * weight, (0, 0), sigma)
            filled = mean[reached] / spread[reached]
            colours[:, :, channel][reached] = filled.clip(0, np.iinfo(samples.dtype).max)
    return colours
