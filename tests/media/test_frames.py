"""Frames from pipes and films, whole or broken."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from dit_tools.core.errors import InputError
from dit_tools.media import frames, image


def picture(level=0.5, size=(4, 6)):
    return np.full((*size, 3), level, np.float32)


def png(level=0.5):
    return image.encode(picture(level), "png")


def ppm(level, comment=b""):
    return b"P6\n6 4\n255\n" + bytes([round(255 * level)] * 72)


class Trickle(io.RawIOBase):
    """A pipe that gives one to three bytes at a time."""

    def __init__(self, content):
        self.rest, self.turn = content, 0

    def read(self, count=-1):
        self.turn = self.turn % 3 + 1
        count = min(count, self.turn) if count != 2 else 2
        part, self.rest = self.rest[:count], self.rest[count:]
        return part


@pytest.mark.parametrize("kind", [png, lambda v: ppm(v)], ids=["png", "ppm"])
def test_pictures_come_out_as_they_went_in(kind):
    levels = (0.2, 0.4, 0.8)
    content = b"".join(kind(v) for v in levels)
    for stream in (io.BytesIO(content), Trickle(content)):
        found = list(frames.of_pipe(stream))
        assert [round(float(f.mean()), 1) for f in found] == list(levels)
        assert all(f.shape == (4, 6, 3) for f in found)


def test_png_and_ppm_may_take_turns():
    assert len(list(frames.of_pipe(io.BytesIO(png() + ppm(0.1) + png())))) == 3


def test_nothing_is_no_frame():
    assert list(frames.of_pipe(io.BytesIO(b""))) == []


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\xff\xd8\xff\xe0 a JPEG, for example", "neither PNG nor PPM"),
        (b"x", "ends in the middle"),
        (b"P6\n6 4\n255\n" + bytes(10), "ends in the middle"),
        (b"P6\n0 4\n255\n", "a bad PPM header"),
        (b"P6\nsix 4 255\n", "a bad PPM header"),
        (b"P6\n" + b"9" * 100, "a bad PPM header"),
        (b"P6\n99999 99999\n255\n", "a bad PPM header"),
        (png()[:40], "ends in the middle"),
        (frames.PNG + struct.pack(">I", 2**31 - 1) + b"IDAT", "over"),
    ],
)
def test_broken_pipes_are_told_in_one_line(content, message):
    with pytest.raises(InputError, match=f"frame 2 of the pipe: .*{message}"):
        list(frames.of_pipe(io.BytesIO(png() + content)))


def test_a_damaged_picture_in_a_pipe_is_told():
    damaged = bytearray(png())
    damaged[50] ^= 0xFF
    with pytest.raises(InputError):
        list(frames.of_pipe(io.BytesIO(bytes(damaged))))


def test_a_film_that_is_none_is_told(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no film at all")
    with pytest.raises(InputError, match=r"a\.mp4: cannot be read as a film"):
        list(frames.of_film(path))
