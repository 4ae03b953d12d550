"""Images in and out: ``read`` a file into float pixels, ``encode`` float pixels into a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.media import _containers as containers
from dit_tools.media import metadata
from dit_tools.media._decode import MAX_BYTES, MAX_PIXELS, Header, Picture, probe, read

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "QUALITY",
    "Header",
    "Picture",
    "encode",
    "format_of",
    "probe",
    "read",
    "suffix",
]

FORMATS = {  # format -> suffixes, the usual one first
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
}
QUALITY = {"jpeg": 95, "webp": 90, "avif": 85}  # what is used where none is given
FULL_COLOUR = 90  # quality from which on jpeg and avif keep colour at full size
SIDES = {"jpeg": 65535, "webp": 16383, "avif": 65535}  # the longest side that a format holds
DEEP = ("png", "tiff")
WHITE = (1.0, 1.0, 1.0)


def format_of(path: str | Path, explicit: str | None = None) -> str:
    """The format to write: the one that is asked for, else the one of the suffix, else png.

    Args:
        path: where the image goes; ``-`` and a name without suffix mean png.
        explicit: the value of ``--format``, ``jpg`` and ``tif`` included; None: not given.

    Raises:
        UsageError: a format or suffix that is not in FORMATS.
    """
    asked = f".{explicit.lower().lstrip('.')}" if explicit else Path(path).suffix.lower()
    for name, suffixes in FORMATS.items():
        if asked in suffixes or not asked:
            return name
    what = f"--format {explicit}" if explicit else f"{path}: suffix '{asked}'"
    raise UsageError(f"{what}: no such image format", f"use one of {', '.join(FORMATS)}")


def suffix(format: str) -> str:
    """The usual suffix of a format, dot included."""
    return FORMATS[format][0]


def encode(
    pixels: np.ndarray,
    format: str,
    *,
    bits: int = 8,
    quality: int | None = None,
    background: tuple[float, float, float] | None = None,
    record: dict[str, Any] | None = None,
    origin: str = "generated",
    icc: bytes | None = None,
    exif: bytes | None = None,
) -> bytes:
    """Encode one image as the bytes of a file.

    Values outside [0, 1] are clipped, then rounded to the nearest step.

    Args:
        pixels: float ``(H, W, C)`` in [0, 1]; C = 1 grey, 3 colour, 4 colour and straight alpha.
            Or samples that are rounded already: uint8, or uint16 where ``bits`` is 16; a large
            photograph takes a quarter of the memory then.
        format: a key of FORMATS.
        bits: bits of a sample: 8, or 16 for png and tiff.
        quality: 1..100 for jpeg, webp, avif (QUALITY where None); webp at 100 is lossless.
        background: colour in [0, 1] to put behind the alpha channel, which then goes; jpeg has no
            alpha, so it needs one (``image.WHITE`` is the usual).
        record: the JSON record to embed (see ``metadata``); None: neither record nor provenance.
        origin: key of ``metadata.ORIGINS``: what made the pixels.
        icc: the colour profile of the pixels.
        exif: EXIF to carry over from an input; its orientation and thumbnail are dropped.

    Raises:
        UsageError: a combination that the format does not hold, or a record that it cannot take.
        UnsupportedError: this Pillow lacks the codec, or the pixels hold NaN.
    """
    _check(pixels, format, bits, quality)
    if pixels.shape[2] == 4 and background is not None:
        pixels = composite_over(pixels, background)
    if pixels.shape[2] == 4 and format == "jpeg":
        hint = "choose png, webp, tiff or avif, or give a background colour"
        raise UsageError("jpeg holds no transparency", hint)
    samples = _samples(pixels, bits)
    text = parameters = None
    if record is not None:
        text, parameters = metadata.record_json(record), metadata.parameters_text(record)
    properties = metadata.origin_property(origin) if record is not None else ""
    if format == "png":
        return _png(samples, text, parameters, properties, icc, exif)
    block = metadata.exif_block(exif, parameters)
    if format == "jpeg":
        return _jpeg(samples, quality or QUALITY["jpeg"], text, properties, icc, block, exif)
    packet = metadata.xmp_packet(properties + metadata.record_property(text)) if text else b""
    if format == "tiff":
        return containers.write_tiff(samples, block, packet, icc)
    options = {"quality": quality or QUALITY[format], "icc_profile": icc, "xmp": packet or None}
    if format == "webp":
        options |= {"lossless": quality == 100, "exact": True}
    if format == "avif" and (quality or QUALITY["avif"]) >= FULL_COLOUR:
        options["subsampling"] = "4:4:4"
    return _pillow(samples, format, exif=block, **options)


def composite_over(pixels: np.ndarray, background: tuple[float, float, float] = WHITE) -> np.ndarray:
    """Composite ``(H, W, 4)`` straight alpha over a colour, giving ``(H, W, 3)``."""
    import numpy as np

    alpha = pixels[:, :, 3:]
    return pixels[:, :, :3] * alpha + (1 - alpha) * np.asarray(background, pixels.dtype)


def _check(pixels: np.ndarray, format: str, bits: int, quality: int | None) -> None:
    import numpy as np

    if format not in FORMATS:
        raise UsageError(f"no image format '{format}'", f"use one of {', '.join(FORMATS)}")
    shape = pixels.shape
    kinds = ("f", f"u{bits // 8}")
    if (
        len(shape) != 3
        or shape[2] not in (1, 3, 4)
        or 0 in shape
        or not (pixels.dtype.kind == kinds[0] or pixels.dtype.str[1:] == kinds[1])
    ):
        raise UsageError(f"pixels must be float (H, W, 1|3|4), not {pixels.dtype} {shape}")
    if bits not in (8, 16) or (bits == 16 and format not in DEEP):
        raise UsageError(f"{format} with {bits} bits cannot be written", "16 bits: png or tiff")
    if quality is not None and (format not in QUALITY or not 1 <= quality <= 100):
        what = "takes no quality" if format not in QUALITY else f"quality {quality}: not in 1..100"
        raise UsageError(f"{format}: {what}", "jpeg, webp and avif take 1..100")
    if max(shape[:2]) > SIDES.get(format, max(shape[:2])):
        side = f"{format} holds at most {SIDES[format]} pixels a side"
        raise UsageError(f"{side}, not {shape[1]}x{shape[0]}", "choose png or tiff")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise UnsupportedError(
            "the pixels hold values that are not numbers", "compute in a wider type: --dtype float32"
        )


def _samples(pixels: np.ndarray, bits: int) -> np.ndarray:
    import numpy as np

    if pixels.dtype.kind == "u":
        return pixels
    top = (1 << bits) - 1
    steps = np.rint(pixels.clip(0, 1).astype(np.float32) * np.float32(top))
    return steps.astype(np.uint8 if bits == 8 else np.uint16)


def _png(
    samples: np.ndarray,
    text: str | None,
    parameters: str | None,
    properties: str,
    icc: bytes | None,
    exif: bytes | None,
) -> bytes:
    import zlib

    chunks = []
    if icc:  # the colour profile has to come before the pixels and before a palette
        body = b"ICC profile\0\0" + zlib.compress(icc)
        chunks.append(containers.png_chunk(b"iCCP", body))
    if exif and (block := metadata.exif_block(exif, None)):
        chunks.append(containers.png_chunk(b"eXIf", block))
    if text is not None and parameters is not None:
        chunks.append(containers.png_text("parameters", parameters))
        chunks.append(containers.png_text("dit", text))
        packet = metadata.xmp_packet(properties).decode()
        chunks.append(containers.png_text(containers.XMP_KEYWORD, packet))
    if samples.dtype.itemsize == 1:
        return containers.insert_png(_pillow(samples, "png"), chunks)
    import cv2

    swapped = samples[:, :, [2, 1, 0, 3][: samples.shape[2]]] if samples.shape[2] > 1 else samples
    return containers.insert_png(cv2.imencode(".png", swapped)[1].tobytes(), chunks)


def _jpeg(
    samples: np.ndarray,
    quality: int,
    text: str | None,
    properties: str,
    icc: bytes | None,
    block: bytes,
    exif: bytes | None,
) -> bytes:
    # Photographs show colour bleeding at 4:2:0; from quality 90 on, colour is kept at full size.
    sampling = "4:4:4" if quality >= FULL_COLOUR else "4:2:0"
    image = _pillow(samples, "jpeg", quality=quality, subsampling=sampling, icc_profile=icc)
    category = containers.SEGMENT_LIMIT - len(containers.EXIF_HEADER)
    if len(block) > category:  # read_parameters makes the text from the record again
        block = metadata.exif_block(exif, None)
    block = block if len(block) <= category else b""
    if text is None:
        return containers.insert_jpeg(image, block, b"", b"") if block else image
    stored, extension = metadata.record_property(text), b""
    packet = metadata.xmp_packet(properties + stored)
    if len(packet) > containers.SEGMENT_LIMIT - len(containers.XMP_HEADER):
        extension = metadata.xmp_packet(stored)
        packet = metadata.xmp_packet(properties, containers.extension_digest(extension))
    return containers.insert_jpeg(image, block, packet, extension)


def _pillow(samples: np.ndarray, format: str, **options: Any) -> bytes:
    from PIL import Image, features

    if format in ("webp", "avif") and not features.check(format):
        raise UnsupportedError(f"this Pillow cannot write {format}", "choose png, or update Pillow")
    if samples.shape[2] == 1:
        samples = samples[:, :, 0]
    buffer = io.BytesIO()
    given = {name: value for name, value in options.items() if value}
    try:
        Image.fromarray(samples).save(buffer, format, **given)
    except (OSError, ValueError) as error:
        raise UsageError(f"{format}: cannot be written: {error}", "choose png") from None
    return buffer.getvalue()
