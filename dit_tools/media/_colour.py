"""What an image file says about its colours outside an ICC profile, as a profile.

PNG: cICP wins over iCCP, that over sRGB, that over gAMA and cHRM (PNG third edition, 4.3). AVIF: a
colour box of code points, where there is no profile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from dit_tools.core.errors import InputError
from dit_tools.media import _containers as containers
from dit_tools.media import profile

LARGEST_PROFILE = 8 << 20  # bytes
_FOLDERS = {b"meta": 4, b"iprp": 0, b"ipco": 0}  # boxes that hold boxes -> bytes before the first
_GREY_TYPES = (0, 4)


def png_profile(content: bytes, icc: bytes | None, notes: list[str]) -> bytes | None:
    """The profile of a PNG: ``icc``, the one in iCCP, or one made of cICP or gAMA and cHRM.

    Raises InputError for high dynamic range and for spaces that cannot be described.
    """
    chunks = {}
    for kind, start, length in containers.png_layout(content):
        if kind in (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"):
            chunks.setdefault(kind, content[start : start + length])
    grey = content[25] in _GREY_TYPES
    if len(code := chunks.get(b"cICP", b"")) == 4:
        if code[2] or not code[3]:
            raise InputError("a PNG whose cICP says YCbCr or video range is not read", "convert it to sRGB first")
        space = profile.from_code_points(code[0], code[1])
        if space is not None:
            return _told(space, grey, "cICP", notes)
    if b"iCCP" in chunks:
        return icc or _icc_chunk(chunks[b"iCCP"], notes)
    if b"sRGB" in chunks or not {b"gAMA", b"cHRM"} & chunks.keys():
        return icc
    return _gamma_profile(chunks, grey, notes)


def _gamma_profile(chunks: dict[bytes, bytes], grey: bool, notes: list[str]) -> bytes | None:
    try:
        gamma = struct.unpack(">I", chunks[b"gAMA"])[0] / 100_000 if b"gAMA" in chunks else None
        places = struct.unpack(">8I", chunks[b"cHRM"]) if b"cHRM" in chunks else None
    except struct.error:
        notes.append("damaged gAMA or cHRM left out")
        return None
    space = profile.from_gamma(gamma, None if places is None else tuple(place / 100_000 for place in places))
    if space is None:
        notes.append("gAMA or cHRM describe no colours and were left out")
        return None
    return _told(space, grey, " and ".join(name for name in ("gAMA", "cHRM") if name.encode() in chunks), notes)


def _told(space: profile.ColourSpace, grey: bool, name: str, notes: list[str]) -> bytes | None:
    made = space.icc(grey)
    if made is not None:
        notes.append(f"{name} became a colour profile")
    return made


def _icc_chunk(body: bytes, notes: list[str]) -> bytes | None:
    """The profile of an iCCP chunk, which Pillow leaves out when it is over 1 MiB."""
    try:
        return containers.inflate(body.partition(b"\0")[2][1:], LARGEST_PROFILE)
    except Exception:  # zlib raises its own; a profile that cannot be read is left out, and told
        notes.append("damaged colour profile left out")
        return None


def avif_facts(content: bytes) -> tuple[profile.ColourSpace | None, int]:
    """The space that an AVIF's first colour box of code points names, and its bits of a sample.

    Raises InputError as ``profile.from_code_points``.
    """
    space, bits = None, 8
    for kind, start, end in _boxes(content, 0, len(content)):
        body = content[start:end]
        if kind == b"av1C" and len(body) > 2 and bits == 8:
            bits = 8 if not body[2] & 0x40 else 12 if body[2] & 0x20 else 10
        if kind == b"colr" and body[:4] == b"nclx" and len(body) >= 11 and space is None:
            space = profile.from_code_points(*struct.unpack(">HH", body[4:8]))
    return space, bits


def _boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        head = 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", content, start + 8)
            head = 16
        stop = end if size == 0 else start + size
        if stop > end or stop < start + head:
            return
        if kind in _FOLDERS:
            yield from _boxes(content, start + head + _FOLDERS[kind], stop)
        else:
            yield kind, start + head, stop
        start = stop


def jpeg2000_bits(content: bytes) -> int:
    """Bits of the deepest component of a JPEG 2000 codestream; 8 where there is no header."""
    at = content.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(content) < at + 42:
        return 8
    (count,) = struct.unpack_from(">H", content, at + 40)
    depths = content[at + 42 : at + 42 + 3 * min(count, 4) : 3]
    return max(((depth & 0x7F) + 1 for depth in depths), default=8)
