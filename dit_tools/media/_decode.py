"""Reading a picture file into float pixels, with what belongs to a photograph kept.

Pillow opens, bounds and checks every file; OpenCV decodes the samples of 16-bit and float colour,
which Pillow would cut to 8 bits.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import DitError, InputError, MemoryLimitError
from dit_tools.media import _containers as containers

if TYPE_CHECKING:
    import numpy as np

MAX_PIXELS = 200_000_000
MAX_BYTES = 1 << 30  # of a picture file
_ORIENTATION = 0x0112
_PHOTOGRAPH = (270, 271, 272, 305, 306, 315, 33432)  # description, camera, software, date, artist
_HIGH_BITS = {"I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16, "F": 32}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture read from a file.

    Attributes:
        pixels: float32 ``(H, W, C)`` in [0, 1], C = 1 grey, 3 colour, 4 colour and straight alpha,
            upright, in the space of ``icc``.
        icc: the colour profile as stored; None: sRGB is assumed.
        exif: the EXIF block without its header, orientation still in it (``encode`` drops it).
        bits: bits of a sample in the file: 8, 16, or 32 for float.
        format: name of the file format in lower case.
        note: what a user should know about the reading, in words; empty: nothing.
    """

    pixels: np.ndarray
    icc: bytes | None
    exif: bytes | None
    bits: int
    format: str
    note: str = ""

    @property
    def alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.pixels.shape[2] == 4


def read(source: str | Path | bytes) -> Picture:
    """Read PNG, JPEG, WebP, TIFF, AVIF, GIF, BMP, PPM or JPEG 2000.

    Orientation is applied, CMYK becomes sRGB by its own profile, palettes become colour, an
    animation gives its first frame. Both last cases, and clipped float samples, leave a ``note``.

    Args:
        source: a path, or the bytes of the file.

    Raises:
        InputError: the file is missing, truncated, damaged, no picture, over 200 megapixels (seen
            before decoding) or over 1 GiB.
        MemoryLimitError: its pixels do not fit into memory.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else _content(Path(source))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is judged here; odd tags are no news to a user
            return _read(content)
    except DitError as error:
        raise InputError(f"{name}: {error.message}", error.hint) from None
    except MemoryError:
        raise MemoryLimitError(f"{name}: does not fit into memory", "scale it down") from None
    except Exception as error:  # decoders of hostile bytes raise anything; none may reach the user
        reason = getattr(error, "strerror", None) or f"damaged or truncated picture: {error}"
        raise InputError(f"{name}: cannot be read: {reason}") from None


def _content(path: Path) -> bytes:
    with open(path, "rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InputError("a picture file of over 1 GiB is refused")
    return content


def _read(content: bytes) -> Picture:
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, MAX_PIXELS)  # our own bound rules
    try:
        image = Image.open(io.BytesIO(content), formats=containers.OPENABLE)
    except Image.DecompressionBombError:
        raise _too_large("") from None
    except UnidentifiedImageError:
        hint = "give PNG, JPEG, WebP, TIFF, AVIF, GIF, BMP, PPM or JPEG 2000"
        raise InputError("not a picture that dit reads", hint) from None
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width}x{image.height} is ")
    icc, exif = image.info.get("icc_profile"), _exif(image)
    turn, kind = _orientation(image), str(image.format).lower().replace("mpo", "jpeg")
    moving = getattr(image, "is_animated", False) and image.format != "MPO"  # MPO: phones' extras
    notes = ["first frame of an animation"] if moving else []
    bits = _bits(image, content)
    image.load()  # raises on truncated files, which OpenCV would read half
    if bits > 8:
        pixels = _deep(image, content)
    else:
        image, icc = _plain_colour(image, icc, notes)
        pixels = _unit(_array(image))
    if kind != "tiff":  # Pillow and OpenCV have turned TIFF already
        pixels = _upright(pixels, turn)
    pixels = _bounded(pixels, notes)
    return Picture(pixels, icc, exif, bits, kind, "; ".join(notes))


def _too_large(size: str) -> InputError:
    return InputError(f"{size}over {MAX_PIXELS // 10**6} megapixels", "scale it down first")


def _exif(image: Any) -> bytes | None:
    block = image.info.get("exif")
    if block is None and image.format == "TIFF":
        block = _photograph_tags(image.getexif())
    return block.removeprefix(containers.EXIF_HEADER) if block else None


def _photograph_tags(exif: Any) -> bytes | None:
    """The tags of a TIFF that describe the photograph; the others describe that file's pixels."""
    from PIL import Image

    kept = Image.Exif()  # a copy: Pillow turns the picture by the original
    for tag in _PHOTOGRAPH:
        if tag in exif:
            kept[tag] = exif[tag]
    for tag in (0x8769, 0x8825):  # EXIF proper, GPS
        if entries := exif.get_ifd(tag):
            kept[tag] = entries
    return kept.tobytes() if len(kept) else None


def _orientation(image: Any) -> int:
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF is common; the pixels are fine
        return 1
    return turn if turn in range(1, 9) else 1


def _upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Apply an EXIF orientation (1..8): transpose for 5..8, then mirror rows and columns."""
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if turn in (3, 4, 7, 8) else 1
    columns = -1 if turn in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


def _bits(image: Any, content: bytes) -> int:
    if image.format == "PNG":
        return 16 if content[24] == 16 else 8
    if image.format == "TIFF":
        depth = image.tag_v2.get(258, (8,))
        deepest = max(depth) if isinstance(depth, tuple) else depth
        return {16: 16, 32: 32}.get(deepest, 8) if image.mode != "CMYK" else 8
    return _HIGH_BITS.get(image.mode, 16 if image.mode == "I" and image.format == "PPM" else 8)


def _deep(image: Any, content: bytes) -> np.ndarray:
    import numpy as np

    if image.mode == "I" and image.format == "PPM":
        return np.asarray(image, np.float32)[:, :, None] / 65535
    if image.mode in _HIGH_BITS and "transparency" not in image.info:
        return _unit(np.asarray(image)[:, :, None])
    import cv2

    samples = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise InputError("the decoder gave up")
    if samples.ndim == 2:
        samples = samples[:, :, None]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]
    return _unit(samples[:, :, order])


def _plain_colour(image: Any, icc: bytes | None, notes: list[str]) -> tuple[Any, bytes | None]:
    """Bring any 8-bit mode to L, RGB or RGBA; the profile goes where the colours change space."""
    if image.mode == "CMYK":
        notes.append("CMYK converted to sRGB")
        return _from_cmyk(image, icc), None
    if image.has_transparency_data:
        return image.convert("RGBA"), icc
    if image.mode in ("L", "RGB"):
        return image, icc
    if image.mode == "I":
        raise InputError("32-bit integer samples are not read")
    return image.convert("L" if image.mode == "1" else "RGB"), icc


def _from_cmyk(image: Any, icc: bytes | None) -> Any:
    from PIL import ImageCms

    if icc:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile: the plain formula below is what viewers do then
    return image.convert("RGB")


def _array(image: Any) -> np.ndarray:
    import numpy as np

    samples = np.asarray(image)
    return samples[:, :, None] if samples.ndim == 2 else samples


def _unit(samples: np.ndarray) -> np.ndarray:
    """Samples of any kind as float32 in [0, 1]; float samples as they are."""
    import numpy as np

    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    return samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)


def _bounded(pixels: np.ndarray, notes: list[str]) -> np.ndarray:
    import numpy as np

    if not (pixels.min() >= 0 and pixels.max() <= 1):  # also true of NaN
        notes.append("float samples outside 0..1 clipped")
        pixels = np.nan_to_num(pixels, nan=0.0).clip(0, 1)
    return np.ascontiguousarray(pixels)
