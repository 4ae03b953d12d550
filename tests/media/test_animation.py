"""Animations are decoded again and compared: number, order, times and sizes of frames."""

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from dit_tools.core.errors import InputError, UsageError
from dit_tools.media.animation import write_animation


def frames(count=4, height=16, width=24, channels=3):
    for index in range(count):
        yield np.full((height, width, channels), index / (count - 1), np.float32)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_loops(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_animation(path, frames(), fps=10, hold=1.0)
    with Image.open(path) as film:
        assert film.n_frames == 4 and film.size == (24, 16) and film.info["loop"] == 0
        durations, levels = [], []
        for index in range(4):
            film.seek(index)
            film.load()
            durations.append(film.info["duration"])
            levels.append(np.asarray(film.convert("L")).mean() / 255)
    assert durations == [100, 100, 100, 1100]
    assert np.allclose(levels, [0, 1 / 3, 2 / 3, 1], atol=0.02)


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
