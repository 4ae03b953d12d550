"""Animations are decoded again and compared: number, order, times and sizes of frames."""

import errno
import subprocess
import sys

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from dit_tools.core.errors import InputError, UsageError
from dit_tools.media import animation
from dit_tools.media.animation import write_animation
from dit_tools.media.frames import read_video


def frames(count=4, height=16, width=24, channels=3):
    for index in range(count):
        yield np.full((height, width, channels), index / (count - 1), np.float32)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_loops(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_animation(path, frames(), fps=10, hold=1.0)
    with Image.open(path) as video:
        assert video.n_frames == 4 and video.size == (24, 16) and video.info["loop"] == 0
        durations, levels = [], []
        for index in range(4):
            video.seek(index)
            video.load()
            durations.append(video.info["duration"])
            levels.append(np.asarray(video.convert("L")).mean() / 255)
    assert durations == [100, 100, 100, 1100]
    assert np.allclose(levels, [0, 1 / 3, 2 / 3, 1], atol=0.02)


@pytest.mark.parametrize("fps", [3, 24, 30, 40, 45, 50])
def test_gif_keeps_its_speed(tmp_path, fps):
    """Hundredths of a second alternate: over two seconds no frame is more than half of one away."""
    path, count = tmp_path / "a.gif", 2 * fps
    write_animation(path, frames(count + 1), fps=fps, hold=0)
    with Image.open(path) as video:
        assert video.n_frames == count + 1
        durations = [video.seek(index) or video.info["duration"] for index in range(count)]
    assert min(durations) >= 20 and all(duration % 10 == 0 for duration in durations)
    ends, wanted = np.cumsum(durations), 1000 * np.arange(1, count + 1) / fps
    assert np.abs(ends - wanted).max() <= 5


@pytest.mark.parametrize("height", [64, 720])
def test_mp4_says_its_colours_and_means_them(tmp_path, height):
    """Red in BT.709 is Y 63, Cb 102, Cr 240; in BT.601, which ffmpeg takes by itself, 81, 90, 240."""
    import subprocess

    import imageio_ffmpeg

    path, width = tmp_path / "a.mp4", 64
    red = np.zeros((height, width, 3), np.float32)
    red[:, :, 0] = 1
    write_animation(path, [red] * 3, fps=5, hold=0)
    program = imageio_ffmpeg.get_ffmpeg_exe()
    told = subprocess.run([program, "-hide_banner", "-i", path], capture_output=True, text=True).stderr
    assert "yuv420p(tv, bt709/bt709/iec61966-2-1" in told
    raw = subprocess.run([program, "-v", "error", "-i", path, "-f", "rawvideo", "-"], capture_output=True).stdout
    plane = np.frombuffer(raw, np.uint8)[: height * width * 3 // 2]
    luma, cb, cr = np.split(plane, [height * width, height * width * 5 // 4])
    assert np.allclose([luma.mean(), cb.mean(), cr.mean()], [63, 102, 240], atol=1.5)
    assert np.allclose(next(iter(read_video(path))), [1, 0, 0], atol=0.02)


def test_film_has_even_sides_and_holds_its_end(tmp_path):
    path = tmp_path / "a.mp4"
    write_animation(path, frames(4, 33, 47, 1), fps=8, hold=0.5)
    read = imageio.imread(path, plugin="FFMPEG")
    assert read.shape == (8, 34, 48, 3)
    assert np.allclose(read.mean(axis=(1, 2, 3)) / 255, [0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1], atol=0.03)


def test_transparency_goes_over_white(tmp_path):
    write_animation(tmp_path / "a.gif", [np.zeros((8, 8, 4), np.float32)], fps=5)
    assert (np.asarray(Image.open(tmp_path / "a.gif").convert("RGB")) == 255).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_refusals_leave_no_film(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    mixed = [np.zeros((8, 8, 3), np.float32)]
    for call, word in (
        (lambda: write_animation(path, [], 5), "at least one"),
        (lambda: write_animation(path, mixed, 0), "takes up to"),
        (lambda: write_animation(path, mixed, 10_000), "takes up to"),
        (lambda: write_animation(path, mixed, float("nan")), "takes up to"),
        (lambda: write_animation(path, mixed, 5, hold=-1), "held"),
        (lambda: write_animation(path, [np.zeros((8, 8), np.float32)], 5), "H, W"),
        (lambda: write_animation(tmp_path / "a.avi", mixed, 5), "a.avi"),
    ):
        with pytest.raises(UsageError, match=word):
            call()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="two sizes"):
        write_animation(path, [*mixed, np.zeros((8, 9, 3), np.float32)], 5)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_missing_folder(tmp_path, suffix):
    with pytest.raises(InputError, match="no/a"):
        write_animation(tmp_path / "no" / f"a{suffix}", frames(), fps=5)


FULL = """
import resource, signal, sys
import numpy as np
from dit_tools.core.errors import InputError
from dit_tools.media import animation
from dit_tools.media.animation import write_animation
frames = np.random.default_rng(0).random((30, 64, 64, 3), np.float32)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    write_animation(sys.argv[1], frames, 10, name="video")
except InputError as error:
    print(error, error.__cause__.errno)
"""


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4"])
@pytest.mark.parametrize("limit", [1_000, 60_000])
def test_a_disk_that_fills_up_is_one_error_and_never_a_cut_film(tmp_path, name, limit):
    """A real failing write(2): the file size limit stands in for the full disk."""
    words = [sys.executable, "-c", FULL, str(tmp_path / name), str(limit)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("video: cannot be written: File too large"), done.stdout
    assert done.stdout.endswith(f" {errno.EFBIG}\n") and done.stderr == ""


def test_what_an_encoder_says_becomes_an_error_of_the_system():
    full = "[out#0/mp4] Error writing trailer: No space left on device\nConversion failed!\n"
    assert animation._failure(1, full).errno == errno.ENOSPC
    assert animation._failure(1, "x\nUnknown encoder\n").strerror == "Unknown encoder"
    assert animation._failure(-9, "").strerror == "ffmpeg ended with status -9"
