"""The container: what goes in comes out, and damage is said before anything is allocated."""

from __future__ import annotations

import dataclasses
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core.errors import InputError
from dit_tools.media import dit_file
from dit_tools.media.dit_file import DEEP, GREY, DitFile, deflated, inflated, parse, tile_spans

FILE = DitFile(1, b"12345678", (700, 1500), 321, 4, 10, (b"abc" * 100, b"d"), 0xDEADBEEF)


def resealed(content: bytes) -> bytes:
    """The content with a right checksum of the whole."""
    return content[:-4] + struct.pack("<I", zlib.crc32(content[:-4]))


def test_what_goes_in_comes_out() -> None:
    extras = {"icc": deflated(b"profile"), "alpha": dit_file.pack_alpha(bytes(700 * 1500), 1500)}
    file = dataclasses.replace(FILE, flags=GREY | DEEP, extras=extras)
    read = parse(file.to_bytes())
    assert read == file
    assert read.extra("icc") == b"profile" and read.extra("exif") is None
    assert read.without_extras().extras == {}


def test_a_small_file_has_a_small_head() -> None:
    file = dataclasses.replace(FILE, size=(5, 5), tiles=(b"x",))
    assert len(file.to_bytes()) - 1 == 36


@given(st.integers(1, 40000), st.integers(6, 10))
def test_tiles_cover_a_side_without_gap_or_overlap(length: int, tile: int) -> None:
    spans = tile_spans(length, tile)
    assert spans[0][0] == 0 and spans[-1][1] == length
    assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))
    assert all(start % 8 == 0 and 0 < end - start <= (1 << tile) + 8 for start, end in spans)


@given(st.data())
def test_alpha_comes_back(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    alpha = data.draw(st.binary(min_size=height * width, max_size=height * width))
    assert dit_file.unpack_alpha(dit_file.pack_alpha(alpha, width), (height, width)) == alpha


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    content = dataclasses.replace(FILE, size=(5, 5), tiles=(b"payload",)).to_bytes()
    for bit in range(len(content) * 8):
        broken = bytearray(content)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InputError):
            parse(bytes(broken))
    for length in range(len(content)):
        with pytest.raises(InputError):
            parse(content[:length])


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (15, 0, "0 pixels"),
        (15, 40_000, "at most 32768"),
        (19, 1 << 31, "at most 32768"),
        (15, 30_000, "more tiles than bytes"),
        (26, 31, "tiles of 2**31"),
        (4, 9, "version 9"),
    ],
)
def test_a_forged_head_is_refused(place: int, value: int, said: str) -> None:
    content = bytearray(dataclasses.replace(FILE, size=(5, 5), tiles=(b"payload",)).to_bytes())
    if place in (15, 19):
        struct.pack_into("<I", content, place, value)
        if value == 30_000:
            struct.pack_into("<I", content, 19, 4000)
            content[26] = 6
    else:
        content[place] = value
    with pytest.raises(InputError, match=said.replace("*", r"\*")):
        parse(resealed(bytes(content)))


def test_a_length_beyond_the_file_is_refused() -> None:
    content = bytearray(dataclasses.replace(FILE, size=(5, 5), tiles=(b"payload",)).to_bytes())
    content[dit_file.HEAD.size] = 100
    with pytest.raises(InputError, match="damaged"):
        parse(resealed(bytes(content)))


def test_an_extra_that_inflates_without_end_is_refused() -> None:
    bomb = zlib.compress(bytes(1 << 20))
    with pytest.raises(InputError, match="over 1000 bytes"):
        inflated(bomb, 1000, "icc")
    with pytest.raises(InputError, match="too short"):
        dit_file.unpack_alpha(zlib.compress(b"ab"), (2, 2))
    with pytest.raises(InputError, match="damaged"):
        inflated(b"no deflate stream", 1000, "icc")


def test_alpha_differences_wrap() -> None:
    alpha = np.array([[255], [0], [254]], np.uint8).tobytes()
    assert dit_file.unpack_alpha(dit_file.pack_alpha(alpha, 1), (3, 1)) == alpha
