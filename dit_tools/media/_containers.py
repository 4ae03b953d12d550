"""Where each image format keeps its text: chunks of PNG, segments of JPEG, tags of TIFF.

PNG and JPEG are walked by hand: that is faster than a decoder, bounded, and keeps what Pillow
cannot write (a 16-bit PNG with a profile, an XMP packet beyond the 64 kB of one JPEG segment).
WebP, AVIF and TIFF are read through Pillow. TIFF is also written here, since neither Pillow nor
OpenCV writes 16-bit colour together with a profile and EXIF.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from dit_tools.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8"
EXIF_HEADER = b"Exif\0\0"
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
EXTENSION_HEADER = b"http://ns.adobe.com/xmp/extension/\0"
XMP_KEYWORD = "XML:com.adobe.xmp"
SEGMENT_LIMIT = 65533  # a JPEG segment counts its own two length bytes in 16 bits
PACKET_LIMIT = 8 << 20  # bytes of an XMP packet: a record of 1 MB, escaped, with space
EXIF_LIMIT = 4 << 20  # bytes of an EXIF block: a record of 1 MB in UTF-16, with space
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
KEYWORDS = tuple(word.encode() for word in ("dit", "parameters", XMP_KEYWORD))
FOREIGN = (b"prompt", b"workflow", b"Comment")  # ComfyUI's and NovelAI's, told where there is no other
COLOUR_CHUNKS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}  # their lengths
PILLOW_CHUNK, PILLOW_TEXTS = 1 << 20, 60 << 20  # bytes of inflated text at which Pillow refuses a PNG
OPENABLE = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "BMP", "PPM", "JPEG2000")
SAMPLES_FLOAT, EXTRA_ALPHA = 3, 2  # TIFF: SampleFormat IEEE float; ExtraSamples straight alpha


@dataclass
class Embedded:
    """The raw text blocks of one image file: PNG texts by keyword, EXIF, XMP, UserComment."""

    texts: dict[str, str] = field(default_factory=dict)
    exif: bytes = b""
    xmp: bytes = b""
    comment: bytes = b""  # only where there is no EXIF block to take it from: TIFF


def extract(stream: BinaryIO) -> Embedded:
    """Read the text blocks of an image without decoding its pixels.

    Raises:
        InputError: a block is over its limit. Damaged files raise what struct, zlib or Pillow
            raise; the caller turns that into an InputError with the file's name.
    """
    magic = stream.read(8)
    stream.seek(0)
    if magic == PNG_MAGIC:
        return _extract_png(stream)
    if magic.startswith(JPEG_MAGIC):
        return _extract_jpeg(stream)
    return _extract_with_pillow(stream)


# PNG


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk: length, kind, body, CRC."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_text(keyword: str, text: str) -> bytes:
    """A text chunk: tEXt for ASCII, which every reader knows, else iTXt in UTF-8."""
    name, body = keyword.encode("ascii"), text.encode("utf-8")
    if text.isascii():
        return png_chunk(b"tEXt", name + b"\0" + body)
    return png_chunk(b"iTXt", name + b"\0\0\0\0\0" + body)


def insert_png(picture: bytes, chunks: list[bytes]) -> bytes:
    """Put chunks right behind the header of a PNG, so that a reader meets them before pixels."""
    end = len(PNG_MAGIC) + 12 + 13  # IHDR is always 13 bytes in its 12 bytes of frame
    return b"".join([picture[:end], *chunks, picture[end:]])


def png_layout(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of the body of every chunk of a PNG, to its end or where it breaks."""
    place = len(PNG_MAGIC)
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        if place + 12 + length > len(content):
            return
        yield kind, place + 8, length
        place += 12 + length


def slim_png(content: bytes) -> bytes:
    """A PNG without the text, profile and colour chunks that Pillow refuses a whole image for.

    It does not read colour chunks that are cut off, and stops at 1 MiB of one inflated chunk and at
    64 MiB of all. Smaller texts stay: XMP and ImageMagick's raw profiles may hold the orientation.
    """
    parts, kept, start = [], 0, 0
    for kind, place, length in png_layout(content):
        if kind not in TEXTS and kind != b"iCCP" and length == COLOUR_CHUNKS.get(kind, length):
            continue
        size = _inflated(kind, content[place : place + length]) if length <= PILLOW_CHUNK else length
        if kind not in COLOUR_CHUNKS and size <= PILLOW_CHUNK and kept + size <= PILLOW_TEXTS:
            kept += size
            continue
        parts.append(content[start : place - 8])
        start = place + length + 4
    return b"".join([*parts, content[start:]]) if parts else content


def _inflated(kind: bytes, body: bytes) -> int:
    """Bytes of a text or profile chunk when it is unpacked; more than PILLOW_CHUNK: not counted on."""
    rest = body.partition(b"\0")[2]
    if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] != b"\1"):
        return len(body)
    packed = rest[1:] if kind != b"iTXt" else rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    try:
        return len(zlib.decompressobj().decompress(packed, PILLOW_CHUNK + 1))
    except zlib.error:
        return len(body)


def _png_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """EXIF, and the texts that are asked for; others are passed over, however long they are."""
    stream.seek(len(PNG_MAGIC))
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if length >= 1 << 31:
            raise InputError(f"a chunk of {length} bytes is over what a PNG may hold")
        start = b"" if kind not in TEXTS else stream.read(min(length, 80))  # a keyword has 79 at most
        keyword = start.partition(b"\0")[0]
        foreign = keyword in FOREIGN and length <= PACKET_LIMIT
        if kind != b"eXIf" and keyword not in KEYWORDS and not foreign:
            stream.seek(length - len(start) + 4, 1)
            continue
        if length > PACKET_LIMIT:
            raise InputError(f"a text chunk of {length} bytes is over {PACKET_LIMIT}")
        yield kind, start + stream.read(length - len(start))
        stream.seek(4, 1)


def _extract_png(stream: BinaryIO) -> Embedded:
    found = Embedded()
    for kind, body in _png_chunks(stream):
        if kind == b"eXIf":
            found.exif = body
            continue
        keyword, _, rest = body.partition(b"\0")
        try:
            found.texts.setdefault(keyword.decode("latin-1"), _chunk_text(kind, rest))
        except (InputError, zlib.error, IndexError):
            if keyword not in FOREIGN:  # another program's damaged text does not concern us
                raise
    found.xmp = found.texts.pop(XMP_KEYWORD, "").encode("utf-8", "replace")
    return found


def _chunk_text(kind: bytes, rest: bytes) -> str:
    if kind in (b"tEXt", b"zTXt"):
        body = rest if kind == b"tEXt" else inflate(rest[1:])
        try:  # Latin-1 by the standard, but some writers (stable-diffusion.cpp) put UTF-8 there
            return body.decode("utf-8")
        except UnicodeDecodeError:
            return body.decode("latin-1")
    packed, rest = rest[0] == 1, rest[2:]
    text = rest.split(b"\0", 2)[2]
    return (inflate(text) if packed else text).decode("utf-8", "replace")


def inflate(packed: bytes, limit: int = PACKET_LIMIT) -> bytes:
    """Undo zlib, refusing (InputError) what grows beyond ``limit`` bytes: a decompression bomb."""
    worker = zlib.decompressobj()
    text = worker.decompress(packed, limit)
    if worker.unconsumed_tail:
        raise InputError(f"a compressed text chunk grows beyond {limit} bytes")
    return text


# JPEG


def insert_jpeg(picture: bytes, exif: bytes, packet: bytes, extension: bytes) -> bytes:
    """Put EXIF and XMP into a JPEG; ``extension`` is the XMP that one segment cannot hold.

    The extension goes out in pieces marked with its MD5, as Adobe's XMP part 3, 1.1.3.1 says;
    ``packet`` must name the same MD5 in ``xmpNote:HasExtendedXMP``.
    """
    blocks = [EXIF_HEADER + exif] if exif else []
    blocks += [XMP_HEADER + packet] if packet else []
    digest, step = extension_digest(extension).encode("ascii"), 65400
    for start in range(0, len(extension), step):
        place = struct.pack(">II", len(extension), start)
        blocks.append(EXTENSION_HEADER + digest + place + extension[start : start + step])
    segments = [b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block for block in blocks]
    start = 2
    if picture[2:4] == b"\xff\xe0":  # JFIF wants to be first
        start += 2 + struct.unpack(">H", picture[4:6])[0]
    return b"".join([picture[:start], *segments, picture[start:]])


def extension_digest(extension: bytes) -> str:
    """The name of an extended XMP packet: its MD5 in capitals (a checksum, not a secret)."""
    return hashlib.md5(extension, usedforsecurity=False).hexdigest().upper()


def _jpeg_segments(stream: BinaryIO) -> Iterator[bytes]:
    stream.seek(2)
    while len(head := stream.read(4)) == 4:
        marker, length = struct.unpack(">HH", head)
        if marker == 0xFFDA or marker < 0xFFC0 or length < 2:  # pixels, or not a JPEG any more
            return
        body = stream.read(length - 2)
        if marker == 0xFFE1:
            yield body


def _extract_jpeg(stream: BinaryIO) -> Embedded:
    found, pieces, size = Embedded(), {}, 0
    for body in _jpeg_segments(stream):
        if body.startswith(EXIF_HEADER) and not found.exif:
            found.exif = body[len(EXIF_HEADER) :]
        elif body.startswith(XMP_HEADER):
            found.xmp = body[len(XMP_HEADER) :]
        elif body.startswith(EXTENSION_HEADER):
            at = len(EXTENSION_HEADER)
            digest, place, piece = body[at : at + 32], body[at + 32 : at + 40], body[at + 40 :]
            pieces[digest, struct.unpack(">II", place)[1]] = piece
            size += len(piece)
            if size > PACKET_LIMIT:
                raise InputError(f"the extended XMP is over {PACKET_LIMIT} bytes")
    for wanted in {digest for digest, _ in pieces}:
        ordered = sorted((at, piece) for (digest, at), piece in pieces.items() if digest == wanted)
        joined = b"".join(piece for _, piece in ordered)
        if wanted in found.xmp and extension_digest(joined).encode("ascii") == wanted:
            found.xmp += joined
    return found


# TIFF, and the formats that Pillow reads


def _extract_with_pillow(stream: BinaryIO) -> Embedded:
    from PIL import Image

    with Image.open(stream, formats=OPENABLE) as image:
        xmp, exif, comment = image.info.get("xmp", b""), image.info.get("exif", b""), b""
        if image.format == "TIFF":
            xmp = image.tag_v2.get(700, b"")  # type: ignore[attr-defined]
            comment = image.getexif().get_ifd(0x8769).get(0x9286, b"")
    if isinstance(xmp, str):
        xmp = xmp.encode("utf-8", "replace")
    if len(xmp) > PACKET_LIMIT:
        raise InputError(f"the XMP packet of {len(xmp)} bytes is over {PACKET_LIMIT}")
    return Embedded({}, exif.removeprefix(EXIF_HEADER), bytes(xmp), bytes(comment))


def write_tiff(samples: np.ndarray, exif: bytes, xmp: bytes, icc: bytes | None) -> bytes:
    """Encode ``(H, W, C)`` uint8 or uint16, C in {1, 3, 4}, as a Deflate TIFF with its tags.

    An EXIF block is itself a small TIFF, so the file starts with it and its offsets stay right;
    the pixels follow, and a new first directory holds the EXIF entries and those of the image.

    Args:
        samples: the pixels, rows from the top.
        exif: EXIF without the ``Exif`` header; empty: none.
        xmp: the XMP packet; empty: none.
        icc: the colour profile.
    """
    import numpy as np

    exif = exif or b"MM\0*\0\0\0\x08\0\0\0\0\0\0"
    order = "<" if exif[:2] == b"II" else ">"
    height, width, count = samples.shape
    bits = samples.dtype.itemsize * 8
    predicted = samples.copy()
    predicted[:, 1:] -= samples[:, :-1]  # Predictor 2: the difference to the left, modulo 2^bits
    strip = zlib.compress(predicted.astype(np.dtype(samples.dtype).newbyteorder(order)).tobytes())
    shorts: dict[int, list[int]] = {
        258: [bits] * count,
        259: [8],
        262: [1 if count == 1 else 2],
        277: [count],
        284: [1],
        317: [2],
        339: [1] * count,
    }
    if count == 4:
        shorts[338] = [EXTRA_ALPHA]
    body = bytearray(exif + b"\0" * (len(exif) % 2))
    entries = {tag: (3, v, struct.pack(f"{order}{len(v)}H", *v)) for tag, v in shorts.items()}
    for tag, value in ((256, width), (257, height), (273, len(body)), (278, height)):
        entries[tag] = (4, [value], struct.pack(f"{order}I", value))
    entries[279] = (4, [0], struct.pack(f"{order}I", len(strip)))
    body += strip
    for tag, kind, blob in ((700, 1, xmp), (34675, 7, icc or b"")):
        if blob:
            entries[tag] = (kind, list(blob), blob)
    return _finish_tiff(body, entries, order, _directory(exif, order))


def _directory(exif: bytes, order: str) -> dict[int, bytes]:
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    rows = (exif[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(count))
    return {struct.unpack_from(f"{order}H", row)[0]: row for row in rows}


def _finish_tiff(
    body: bytearray, entries: dict[int, tuple[int, list[int], bytes]], order: str, rows: dict[int, bytes]
) -> bytes:
    for tag, (kind, values, blob) in entries.items():
        if len(blob) > 4:
            body += b"\0" * (len(body) % 2)
            place = struct.pack(f"{order}I", len(body))
            body += blob
        else:
            place = blob.ljust(4, b"\0")
        rows[tag] = struct.pack(f"{order}HHI", tag, kind, len(values)) + place
    body += b"\0" * (len(body) % 2)
    struct.pack_into(f"{order}I", body, 4, len(body))
    body += struct.pack(f"{order}H", len(rows)) + b"".join(rows[tag] for tag in sorted(rows))
    return bytes(body + b"\0\0\0\0")
