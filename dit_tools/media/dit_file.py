"""The ``.dit`` file: a compressed image, its size, and what it takes to check that it is whole.

Layout, little-endian, version 1::

    magic "DITC" | version u8 | flags u8 | codec u8 | model digest 8 bytes | height u32 | width u32
    setting u16 | rate u8 | tile side u8 (its logarithm to base 2)
    length of each tile's payload, and of each extra that the flags announce (variable length)
    payloads, row by row | ICC profile | EXIF | alpha, each deflated
    CRC-32 of the decoded symbols u32 | CRC-32 of everything before u32

Reading checks the last CRC first, and every bound before it allocates: a tile takes at least one
byte of the file, so what a file can ask for is bounded by its own length.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from dit_tools.core.errors import InputError, UsageError
from dit_tools.core.reading import read_at_most

MAGIC = b"DITC"
VERSION = 1
HEAD = struct.Struct("<4sBBB8sIIHBB")
TAIL = struct.Struct("<II")
SUFFIX = ".dit"
MOST_SIDE = 32768
MOST_PIXELS = 1 << 27
MOST_BYTES = 1 << 29
MOST_EXTRA = 1 << 24
"""Bytes that an ICC profile or EXIF block may inflate to."""
EXTRAS = ("icc", "exif", "alpha")
GREY, DEEP = 8, 16
"""Flags: the source had no colour; the source had more than 8 bits a sample."""


@dataclass(frozen=True)
class DitFile:
    """The contents of a ``.dit`` file.

    Attributes:
        codec: Number of the codec that made the payloads.
        digest: Eight bytes that identify the tables that the payloads are read with.
        size: Height and width of the image.
        setting: The codec's quality setting, as it counts it.
        rate: Which of the codec's classes of rates was used.
        tile: Logarithm to base 2 of the longest side of a tile.
        tiles: One payload a tile, row by row.
        symbols: CRC-32 of the decoded symbols.
        flags: ``GREY`` and ``DEEP``.
        extras: Deflated ``icc``, ``exif`` and ``alpha`` of those that there are.
    """

    codec: int
    digest: bytes
    size: tuple[int, int]
    setting: int
    rate: int
    tile: int
    tiles: tuple[bytes, ...]
    symbols: int
    flags: int = 0
    extras: dict[str, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The whole file."""
        flags = self.flags | sum(1 << i for i, name in enumerate(EXTRAS) if name in self.extras)
        head = HEAD.pack(MAGIC, VERSION, flags, self.codec, self.digest, *self.size, self.setting, self.rate, self.tile)
        extras = [self.extras[name] for name in EXTRAS if name in self.extras]
        lengths = b"".join(_variable(len(part)) for part in (*self.tiles, *extras))
        body = b"".join((head, lengths, *self.tiles, *extras, struct.pack("<I", self.symbols)))
        return body + struct.pack("<I", zlib.crc32(body))

    def without_extras(self) -> DitFile:
        """The same image without profile, EXIF and alpha."""
        return replace(self, extras={})

    def extra(self, name: str, most: int = MOST_EXTRA) -> bytes | None:
        """An extra, inflated; None where there is none. Raises InputError beyond ``most`` bytes."""
        return inflated(self.extras[name], most, name) if name in self.extras else None


def tile_spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Start and end of each tile along a side: as even as starts at multiples of eight allow."""
    count = -(-length // (1 << tile))
    edges = [length * index // count // 8 * 8 for index in range(count)] + [length]
    return list(zip(edges, edges[1:], strict=False))


def parse(content: bytes, name: str = "the file") -> DitFile:
    """Read a ``.dit`` file.

    Args:
        content: The bytes of the file.
        name: What to call it in errors.

    Raises:
        InputError: It is no ``.dit`` file, of a later version, cut off, damaged or too large.
    """
    if len(content) < HEAD.size + TAIL.size or content[:4] != MAGIC:
        raise InputError(f"{name}: not a .dit file", "it begins with the letters DITC")
    if content[4] != VERSION:
        raise InputError(f"{name}: version {content[4]} of the .dit format", "update dit")
    symbols, crc = TAIL.unpack(content[-TAIL.size :])
    if zlib.crc32(content[:-4]) != crc:
        raise InputError(f"{name}: damaged: its checksum does not match", "copy it here again")
    _, _, flags, codec, digest, height, width, setting, rate, tile = HEAD.unpack_from(content)
    if not (0 < height <= MOST_SIDE and 0 < width <= MOST_SIDE and height * width <= MOST_PIXELS):
        raise InputError(f"{name}: {width}x{height} pixels", f"at most {MOST_SIDE} a side and {MOST_PIXELS} in all")
    if not 6 <= tile <= 10:
        raise InputError(f"{name}: damaged: tiles of 2**{tile} pixels", "copy it here again")
    count = len(tile_spans(height, tile)) * len(tile_spans(width, tile))
    names = [extra for index, extra in enumerate(EXTRAS) if flags >> index & 1]
    if count + len(names) > len(content):
        raise InputError(f"{name}: damaged: more tiles than bytes", "copy it here again")
    lengths, place = _lengths(content, HEAD.size, count + len(names), name)
    parts = []
    for length in lengths:
        parts.append(content[place : place + length])
        place += length
    if place != len(content) - TAIL.size:
        raise InputError(f"{name}: damaged: {len(content)} bytes instead of {place + TAIL.size}", "copy it here again")
    extras = dict(zip(names, parts[count:], strict=True))
    tiles, kept = tuple(parts[:count]), flags & (GREY | DEEP)
    return DitFile(codec, digest, (height, width), setting, rate, tile, tiles, symbols, kept, extras)


def read(path: Path) -> bytes:
    """The bytes of a ``.dit`` file. Raises InputError when it cannot be read, or is far too large."""
    try:
        with path.open("rb") as stream:
            return read_at_most(stream, MOST_BYTES, f"{path}: a .dit file")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", "check the path") from None


def _variable(number: int) -> bytes:
    """Seven bits a byte, the low ones first; the top bit says that more follow."""
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def _lengths(content: bytes, place: int, count: int, name: str) -> tuple[list[int], int]:
    lengths = []
    for _ in range(count):
        number = shift = 0
        while True:
            if place >= len(content) or shift > 28:
                raise InputError(f"{name}: damaged: its table of lengths", "copy it here again")
            byte = content[place]
            number, place, shift = number | (byte & 127) << shift, place + 1, shift + 7
            if byte < 128:
                break
        lengths.append(number)
    return lengths, place


def deflated(content: bytes) -> bytes:
    """Content as an extra is stored. Raises UsageError for more than a reader would take."""
    if len(content) > MOST_EXTRA:
        raise UsageError(f"{len(content)} bytes of metadata", "leave them out with --strip")
    return zlib.compress(content, 9)


def inflated(content: bytes, most: int, name: str) -> bytes:
    """The opposite, never more than ``most`` bytes. Raises InputError."""
    engine = zlib.decompressobj()
    try:
        out = engine.decompress(content, most)
    except zlib.error as error:
        raise InputError(f"the file's {name}: damaged ({error})", "copy it here again") from None
    if engine.unconsumed_tail or not engine.eof:
        raise InputError(f"the file's {name}: damaged or over {most} bytes", "copy it here again")
    return out


def pack_alpha(alpha: bytes, width: int) -> bytes:
    """An 8-bit alpha channel without loss: differences from the row above, deflated."""
    import numpy as np

    rows = np.frombuffer(alpha, np.uint8).reshape(-1, width)
    return zlib.compress(np.diff(rows, axis=0, prepend=np.uint8(0)).tobytes(), 9)


def unpack_alpha(content: bytes, size: tuple[int, int]) -> bytes:
    """The alpha channel, one byte a pixel, row by row. Raises InputError."""
    import numpy as np

    height, width = size
    differences = inflated(content, height * width, "alpha")
    if len(differences) != height * width:
        raise InputError("the file's alpha: damaged: too short", "copy it here again")
    rows = np.frombuffer(differences, np.uint8).reshape(height, width)
    return np.cumsum(rows, axis=0, dtype=np.uint8).tobytes()
