"""The built-in super-resolution network: better than cubic interpolation, small, whole, without seams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dit_tools.media.samples import load
from dit_tools.models import photo
from dit_tools.models.loading import store
from dit_tools.tasks.photo.network import enlarge
from tests.support.photographs import drawing
from tests.support.program import dit

GAIN = {2: 3.0, 3: 2.0, 4: 1.7}  # dB over cubic interpolation on each drawing, with some category


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def reduced(large: np.ndarray, scale: int) -> np.ndarray:
    size = (large.shape[1] // scale, large.shape[0] // scale)
    return np.asarray(Image.fromarray(large).resize(size, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_drawings_are_enlarged_better_than_by_cubic_interpolation(scale, dtype) -> None:
    model = photo.load("superres", "superres", "cpu", dtype)
    for seed in range(3):
        large = drawing(seed)
        plain, made = (enlarge(model, reduced(large, scale), scale, s, 0, 8) for s in (0.0, 1.0))
        assert psnr(made, large) > psnr(plain, large) + GAIN[scale]


def test_int8_is_as_good_as_float32() -> None:
    found = {}
    for dtype in ("float32", "int8"):
        model = photo.load("superres", "superres", "cpu", dtype)
        found[dtype] = [psnr(enlarge(model, reduced(drawing(s), 4), 4, 1.0, 0, 8), drawing(s)) for s in range(3)]
    assert np.mean(found["int8"]) > np.mean(found["float32"]) - 0.05


def test_tiles_leave_no_seam() -> None:
    model = photo.load("superres", "superres", "cpu", None)
    image = reduced(drawing(1), 2)
    whole, tiled = (enlarge(model, image, 4, 1.0, tile, 8).astype(int) for tile in (0, 40))
    assert abs(whole - tiled).max() <= 1


def test_the_files_are_whole_and_small() -> None:
    model = store.locate("superres")
    assert store.verify_files(model).ok and "CC-BY" in (model.path / "NOTICE.txt").read_text()
    half = (model.path / "model.safetensors").stat().st_size
    assert half < 6e6 and model.bytes < 6e6


def test_the_command_without_a_model(tmp_path: Path) -> None:
    Image.fromarray(reduced(drawing(0), 4)).save(tmp_path / "small.png")
    done = dit("superres", "small.png", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == "small-superres.png\n", done.stderr
    made = load(tmp_path / "small-superres.png").samples
    assert psnr(made, drawing(0)) > 28
