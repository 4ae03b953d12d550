"""Frames from pipes and videos, whole or broken."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

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
        found = list(frames.read_pipe(stream))
        assert [round(float(f.mean()), 1) for f in found] == list(levels)
        assert all(f.shape == (4, 6, 3) for f in found)


def test_png_and_ppm_may_take_turns():
    assert len(list(frames.read_pipe(io.BytesIO(png() + ppm(0.1) + png())))) == 3


def test_nothing_is_no_frame():
    assert list(frames.read_pipe(io.BytesIO(b""))) == []


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
        list(frames.read_pipe(io.BytesIO(png() + content)))


def test_a_damaged_picture_in_a_pipe_is_told():
    damaged = bytearray(png())
    damaged[50] ^= 0xFF
    with pytest.raises(InputError):
        list(frames.read_pipe(io.BytesIO(bytes(damaged))))


def test_a_film_that_is_none_is_told(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(InputError, match=r"a\.mp4: cannot be read as a video"):
        list(frames.read_video(path))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "AVIF"])
def test_moving_images_give_every_frame(tmp_path, format):
    """The first frame only was the fault. Frames differ by more than the codecs lose."""
    shots = [Image.fromarray(np.full((16, 24, 3), level, np.uint8)) for level in (10, 90, 170, 250)]
    path = tmp_path / f"a.{format.lower()}"
    shots[0].save(path, format, save_all=True, append_images=shots[1:], duration=100)
    found = list(frames.of_images(path))
    assert [frame.shape[:2] for frame in found] == [(16, 24)] * 4
    assert np.allclose([frame[:, :, :3].mean() * 255 for frame in found], [10, 90, 170, 250], atol=3)


def test_frames_of_a_gif_lie_on_those_before(tmp_path):
    """A frame that holds only what moves, with transparency: the whole image comes out."""
    first = np.full((16, 16, 3), 200, np.uint8)
    second = first.copy()
    second[4:8, 4:8] = 20
    path = tmp_path / "a.gif"
    Image.fromarray(first).save(path, save_all=True, append_images=[Image.fromarray(second)], optimize=True)
    found = list(frames.of_images(path))
    assert np.abs(found[1][:, :, :3] * 255 - second).max() <= 2


def test_a_still_image_is_one_frame_with_its_depth(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(image.encode(picture(), "png", bits=16))
    assert [frame.shape for frame in frames.of_images(path)] == [(4, 6, 3)]


def test_a_film_cut_off_is_named(tmp_path):
    shots = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)) for i in range(3)]
    shots[0].save(tmp_path / "a.gif", save_all=True, append_images=shots[1:])
    (tmp_path / "a.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:-1500])
    with pytest.raises(InputError, match=r"a\.gif"):
        list(frames.of_images(tmp_path / "a.gif"))
