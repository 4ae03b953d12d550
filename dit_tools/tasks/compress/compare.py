"""``--compare``: the same image by other formats at the same bytes, as a sheet and as numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import UsageError
from dit_tools.media import image
from dit_tools.media.sheet import contact_sheet
from dit_tools.tasks.compress import measure

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIVALS: dict[str, dict[str, Any]] = {
    "jpeg": {"optimize": True, "progressive": True},
    "webp": {"method": 6},
    "avif": {"speed": 4},
}
"""Formats to compare with, and the options that make Pillow's files of them small."""


def check(formats: Sequence[str]) -> None:
    """Raise UsageError for a format that is no rival, or that this Pillow cannot write."""
    from PIL import features

    for name in formats:
        if name not in RIVALS:
            raise UsageError(f"--compare {name}: no such format", f"use {', '.join(RIVALS)}")
        if name in ("webp", "avif") and not features.check(name):
            raise UsageError(f"--compare {name}: this Pillow cannot write it", "leave it out")


def rival(samples: NDArray, format: str, allowed: int) -> tuple[bytes, int]:
    """The best file of a format within ``allowed`` bytes, and its quality; else its smallest."""
    low, high = 1, 95
    best: tuple[bytes, int] | None = None
    smallest = encode(samples, format, low), low
    while low <= high:
        middle = (low + high) // 2
        content = encode(samples, format, middle)
        if len(content) <= allowed:
            best, low = (content, middle), middle + 1
        else:
            high = middle - 1
    return best or smallest


def encode(samples: NDArray, format: str, quality: int) -> bytes:
    """A file of that format and quality 0..100, without metadata."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, format, quality=quality, **RIVALS[format])
    return buffer.getvalue()


def decode(content: bytes) -> NDArray:
    """uint8 RGB of a file that :func:`encode` made."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def sheet(
    source: NDArray, decoded: NDArray, size: int, facts: Mapping[str, Any], formats: Sequence[str]
) -> tuple[bytes, list[dict[str, Any]]]:
    """A PNG of the source, our result and the rivals' at our bytes; and a row of numbers for each."""
    import numpy as np

    rows: list[dict[str, Any]] = [{"format": "dit", "bytes": size, "psnr": facts["psnr"], "ms_ssim": facts["ms_ssim"]}]
    images = [source, decoded]
    for name in formats:
        content, quality = rival(source, name, size)
        other = decode(content)
        images.append(other)
        row = {"format": name, "bytes": len(content), "quality": quality}
        rows.append(row | {"psnr": measure.psnr(source, other), "ms_ssim": measure.ms_ssim(source, other)})
    labels = ["source"] + [f"{row['format']} {row['bytes']} B {row['psnr']:.2f} dB" for row in rows]
    cells = [picture.astype(np.float32) / np.float32(255) for picture in images]
    return image.encode(contact_sheet(cells, min(len(cells), 3), labels), "png"), rows
