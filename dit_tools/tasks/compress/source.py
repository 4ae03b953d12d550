"""Between image files and what a codec takes: 8-bit samples, grey as colour, alpha apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dit_tools.core.errors import InputError
from dit_tools.media import dit_file, image, metadata
from dit_tools.media.dit_file import DitFile
from dit_tools.media.image import Picture

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """An image ready for a codec.

    Attributes:
        samples: uint8 RGB (height, width, 3).
        flags: ``GREY`` and ``DEEP`` of :mod:`dit_tools.media.dit_file`.
        extras: Deflated profile, EXIF and alpha.
        note: What was not kept, in words.
    """

    samples: NDArray
    flags: int
    extras: dict[str, bytes]
    note: str


def prepare(picture: Picture, name: str, strip: bool) -> Source:
    """What is coded of an image. Raises InputError for more pixels than a file may have."""
    import numpy as np

    height, width, channels = picture.pixels.shape
    if max(height, width) > dit_file.MOST_SIDE or height * width > dit_file.MOST_PIXELS:
        most = f"a .dit file holds at most {dit_file.MOST_SIDE} pixels a side and {dit_file.MOST_PIXELS} in all"
        raise InputError(f"{name}: {width}x{height} pixels", most)
    samples = np.rint(picture.pixels * np.float32(255)).astype(np.uint8)
    extras: dict[str, bytes] = {}
    if channels == 4:
        extras["alpha"] = dit_file.pack_alpha(samples[:, :, 3].tobytes(), width)
    if picture.icc and not strip:
        extras["icc"] = dit_file.deflated(picture.icc)
    if picture.exif and not strip and (block := metadata.exif_block(picture.exif, None)):
        extras["exif"] = dit_file.deflated(block)
    flags = (dit_file.GREY if channels == 1 else 0) | (dit_file.DEEP if picture.bits > 8 else 0)
    notes = [picture.note, f"8 of {picture.bits} bits are kept" if picture.bits > 8 else ""]
    colour = np.repeat(samples, 3, axis=2) if channels == 1 else np.ascontiguousarray(samples[:, :, :3])
    return Source(colour, flags, extras, "; ".join(filter(None, notes)))


def encoded(samples: NDArray, file: DitFile, format: str, quality: int | None = None) -> bytes:
    """A decoded image as a file of some format, with what the ``.dit`` file carries.

    Raises:
        InputError: An extra is damaged.
        UsageError: The format cannot hold it.
    """
    import numpy as np

    pixels = samples.astype(np.float32) / np.float32(255)
    if file.flags & dit_file.GREY:
        pixels = pixels.mean(axis=2, keepdims=True, dtype=np.float32)
    if "alpha" in file.extras:
        alpha = np.frombuffer(dit_file.unpack_alpha(file.extras["alpha"], file.size), np.uint8)
        channel = alpha.reshape(*file.size, 1).astype(np.float32) / np.float32(255)
        colour = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
        pixels = np.concatenate([colour, channel], axis=2)
    icc, exif = file.extra("icc"), file.extra("exif")
    return image.encode(pixels, format, quality=quality, icc=icc, exif=exif)
