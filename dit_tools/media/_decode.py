"""Reading an image file into float pixels, with what belongs to a photograph kept.

Pillow opens, bounds and checks every file; OpenCV decodes the samples of 16-bit and float colour,
which Pillow would cut to 8 bits.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import DitError, InputError, MemoryLimitError
from dit_tools.core.memory import require
from dit_tools.core.reading import read_at_most
from dit_tools.media import _colour, _tiff
from dit_tools.media import _containers as containers

if TYPE_CHECKING:
    import numpy as np

MAX_PIXELS = 200_000_000
MAX_BYTES = 1 << 30  # of an image file
_CHEAP = 16_000_000  # pixels that are decoded to see whether they are all there
_BYTES = {8: 6, 16: 10, 32: 12}  # bits of a sample -> bytes that decoding holds of it at once
_NETPBM = re.compile(rb"P[56](?:\s+(?:#[^\n]*\n\s*)*)\d+\s+\d+\s+(\d{1,5})\s")
_ORIENTATION = 0x0112
_PHOTOGRAPH = (270, 271, 272, 305, 306, 315, 33432)  # description, camera, software, date, artist
_HIGH_BITS = {"I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16, "F": 32}  # Pillow's modes


@dataclass(frozen=True, eq=False)
class Picture:
    """An image read from a file.

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

    @property
    def even(self) -> bool:
        """Whether opacity is the same everywhere, as it is without alpha."""
        return not self.alpha or bool(self.pixels[:, :, 3].min() == self.pixels[:, :, 3].max())

    @property
    def opaque(self) -> bool:
        """Whether nothing shines through, with alpha or without."""
        return not self.alpha or bool(self.pixels[:, :, 3].min() >= 1)


def read(source: str | Path | bytes) -> Picture:
    """Read PNG, JPEG, WebP, TIFF, AVIF, GIF, BMP, PPM or JPEG 2000.

    Orientation is applied, CMYK becomes sRGB by its own profile, palettes become colour, an
    animation gives its first frame. Both last cases, and clipped float samples, leave a ``note``.

    Args:
        source: a path, or the bytes of the file.

    Raises:
        InputError: the file is missing, truncated, damaged, no image, over 200 megapixels (seen
            before decoding) or over 1 GiB.
        MemoryLimitError: its pixels do not fit into memory, which is judged before decoding.
    """
    return _guarded(source, _read)


def _guarded(source: str | Path | bytes, work: Callable[[bytes], Any]) -> Any:
    """``work`` on the file's bytes; whatever a decoder raises becomes an error that names the file."""
    name = "the image" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else _content(Path(source))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # size is judged here; odd tags are no news to a user
            return work(content)
    except MemoryLimitError as error:
        raise MemoryLimitError(f"{name}: {error.message}", error.hint) from None
    except DitError as error:
        raise InputError(f"{name}: {error.message}", error.hint) from None
    except MemoryError:
        raise MemoryLimitError(f"{name}: does not fit into memory", "scale it down") from None
    except Exception as error:  # decoders of hostile bytes raise anything; none may reach the user
        reason = getattr(error, "strerror", None) or f"damaged or truncated image: {error}"
        raise InputError(f"{name}: cannot be read: {reason}") from None


def _content(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return read_at_most(stream, MAX_BYTES, "an image file")


@dataclass(frozen=True)
class Header:
    """What an image file says before its pixels are decoded; names as in Image."""

    width: int
    height: int
    channels: int
    bits: int
    alpha: bool
    icc: bytes | None
    format: str
    note: str = ""


def probe(source: str | Path | bytes) -> Header:
    """What ``read`` would give, without the pixels: memory and time do not grow with them.

    A file whose pixels end early is found out where that costs little: PNG and JPEG by their last
    mark, others by decoding up to 16 megapixels.

    Raises:
        InputError: as ``read``.
    """
    return _guarded(source, _probe)


def _probe(content: bytes) -> Header:
    opened = _open(content)
    image, notes = opened.image, opened.notes
    _complete(image, content)
    width, height = image.size[:: -1 if opened.turn >= 5 else 1]
    alpha = image.has_transparency_data or image.mode in ("La", "RGBa")
    grey = image.mode in ("1", "L", "F", "I") or image.mode.startswith("I;16")
    if image.mode == "CMYK":
        notes.append("CMYK converted to sRGB")
    channels = 4 if alpha else 1 if grey else 3
    return Header(width, height, channels, opened.bits, alpha, opened.icc, opened.kind, "; ".join(notes))


def _complete(image: Any, content: bytes) -> None:
    """Raise InputError when the file ends before its pixels do, as far as that is quickly seen."""
    if image.format == "PNG":
        whole = any(kind == b"IEND" for kind, _, _ in containers.png_layout(content))
    elif image.format == "JPEG":
        whole = b"\xff\xd9" in content[-65536:]
    elif image.width * image.height <= _CHEAP:
        image.load()
        return
    else:
        return
    if not whole:
        raise InputError("damaged or truncated image: it ends early")


@dataclass
class _Opened:
    """A file that Pillow has opened and nobody has decoded yet."""

    image: Any
    content: bytes
    icc: bytes | None
    exif: bytes | None
    turn: int
    bits: int
    kind: str
    notes: list[str]


def _open(content: bytes) -> _Opened:
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, MAX_PIXELS)  # our own bound rules
    original = content
    if content.startswith(containers.PNG_MAGIC):
        content = containers.slim_png(content)
    try:
        image = Image.open(io.BytesIO(content), formats=containers.OPENABLE)
    except Image.DecompressionBombError:
        raise _too_large("") from None
    except UnidentifiedImageError:
        if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise InputError("a TIFF of this kind is not read", _tiff.SAVE) from None
        hint = "give PNG, JPEG, WebP, TIFF, AVIF, GIF, BMP, PPM or JPEG 2000"
        raise InputError("not an image that dit reads", hint) from None
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width}x{image.height} is ")
    kind = str(image.format).lower().replace("mpo", "jpeg")
    moving = getattr(image, "is_animated", False) and image.format != "MPO"  # MPO: phones' extras
    notes = ["first frame of an animation"] if moving else []
    bits = _bits(image, content)
    key = image.info.get("transparency")
    if image.format == "PNG" and isinstance(key, int) and content[24] in (2, 4) and content[25] == 0:
        image.info["transparency"] = key * 255 // (2 ** content[24] - 1)  # Pillow scales samples, not the key
    icc = _profile(image, original, notes)
    return _Opened(image, content, icc, _exif(image), _orientation(image), bits, kind, notes)


def _profile(image: Any, content: bytes, notes: list[str]) -> bytes | None:
    """The colour profile, or one made of what the file says in other words; notes what is cut."""
    icc = image.info.get("icc_profile")
    if image.format == "PNG":
        return _colour.png_profile(content, icc, notes)
    if image.format == "AVIF":
        space, bits = _colour.avif_facts(content)
        if bits > 8:
            notes.append(f"{bits} bits a sample read as 8")
        if icc is None and space is not None and (icc := space.icc(grey=False)):
            notes.append("the colour box became a colour profile")
    if image.format == "JPEG2000" and (bits := _colour.jpeg2000_bits(content)) > 8 and image.mode[:1] != "I":
        notes.append(f"{bits} bits a sample read as 8")
    return icc


def _read(content: bytes) -> Picture:
    opened = _open(content)
    image, icc, notes, bits = opened.image, opened.icc, opened.notes, opened.bits
    count = 4 if image.has_transparency_data else max(len(image.getbands()), 1)
    require(image.width * image.height * count * _BYTES[bits], f"an image of {image.width}x{image.height} pixels")
    image.load()  # raises on truncated files, which OpenCV would read half
    if bits > 8:
        pixels = _deep(image, opened.content)
    else:
        image, icc = _plain_colour(image, icc, notes)
        pixels = _unit(_array(image))
    if opened.kind == "tiff":
        pixels = _tiff.finish(opened.image, pixels, bits, notes)
    else:  # Pillow and OpenCV have turned TIFF already
        pixels = _upright(pixels, opened.turn)
    pixels = _bounded(pixels, notes)
    return Picture(pixels, icc, opened.exif, bits, opened.kind, "; ".join(notes))


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

    kept = Image.Exif()  # a copy: Pillow turns the image by the original
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
        return _tiff.depth(image)
    if image.format == "PPM" and (header := _netpbm(content)) and header[1] > 255:
        return 16
    return _HIGH_BITS.get(image.mode, 8)


def _netpbm(content: bytes) -> tuple[int, int] | None:
    """Where the samples of a binary PGM or PPM start, and their greatest value; None: another."""
    found = _NETPBM.match(content[:2000])
    return (found.end(), int(found[1])) if found else None


def _deep(image: Any, content: bytes) -> np.ndarray:
    import numpy as np

    if image.format == "PPM" and (header := _netpbm(content)):
        start, top = header
        shape = (image.height, image.width, 3 if content[:2] == b"P6" else 1)
        samples = np.frombuffer(content, ">u2", shape[0] * shape[1] * shape[2], start).reshape(shape)
        return samples.astype(np.float32) / np.float32(top)
    # Pillow swaps the bytes of float samples behind a compression twice.
    swapped = image.mode == "F" and content[:2] == b"MM" and _tiff.compressed(image)
    if image.mode in _HIGH_BITS and not swapped:
        pixels = np.asarray(image)[:, :, None]
        return _keyed(_unit(pixels), pixels, image.info.get("transparency"))
    import cv2

    level = cv2.utils.logging.setLogLevel(0)  # it writes about damage to stderr by itself
    try:
        samples = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if samples is None:
        raise InputError("this kind of compression or sample is not read", "save it as PNG")
    if samples.ndim == 2:
        samples = samples[:, :, None]
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]
    samples = samples[:, :, order]
    return _keyed(_unit(samples), samples, image.info.get("transparency"))


def _keyed(pixels: np.ndarray, samples: np.ndarray, key: Any) -> np.ndarray:
    """With an alpha channel where a PNG of 16 bits names one colour as transparent (tRNS)."""
    import numpy as np

    if key is None:
        return pixels
    colours = samples[:, :, :3]
    shown = (colours != np.asarray(key, colours.dtype).reshape(1, 1, -1)).any(axis=2, keepdims=True)
    three = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]
    return np.concatenate([three, shown.astype(np.float32)], axis=2)


def _plain_colour(image: Any, icc: bytes | None, notes: list[str]) -> tuple[Any, bytes | None]:
    """Bring any 8-bit mode to L, RGB or RGBA; the profile goes where the colours change space."""
    if image.mode == "CMYK":
        notes.append("CMYK converted to sRGB")
        return _from_cmyk(image, icc), None
    if image.mode == "La":  # grey with premultiplied alpha
        image = image.convert("LA")
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
    pixels = samples.astype(np.float32)
    pixels /= np.float32(np.iinfo(samples.dtype).max)  # in place: an image may have 200 megapixels
    return pixels


def _bounded(pixels: np.ndarray, notes: list[str]) -> np.ndarray:
    import numpy as np

    if not (pixels.min() >= 0 and pixels.max() <= 1):  # also true of NaN
        notes.append("float samples outside 0..1 clipped")
        pixels = np.nan_to_num(pixels, nan=0.0).clip(0, 1)
    return np.ascontiguousarray(pixels)
