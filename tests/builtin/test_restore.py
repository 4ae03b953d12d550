"""The built-in restoration network: what it does for noise and JPEG, and that it leaves no seams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dit_tools.media.samples import load, to_samples
from dit_tools.methods import degradation
from dit_tools.models import photo
from dit_tools.models.loading import store
from dit_tools.tasks.photo.network import repair
from tests.support.photographs import drawing
from tests.support.program import dit


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def spoilt(clean: np.ndarray, text: str) -> np.ndarray:
    chain = degradation.parse(text)
    return to_samples(chain.apply(clean.astype(np.float32) / np.float32(255), np.random.default_rng(0)), 8)


@pytest.mark.parametrize(
    ("text", "gain"),
    [("noise:sigma=15", 5.0), ("noise:sigma=25", 7.0), ("noise:sigma=50", 8.0), ("jpeg:quality=15", 0.2)],
)
def test_what_it_gains(text, gain) -> None:
    model = photo.load("restore", "restore", "cpu", None)
    for seed in range(2):
        clean = drawing(seed)
        bad = spoilt(clean, text)
        assert psnr(repair(model, bad, 1.0, 0), clean) > psnr(bad, clean) + gain


def test_a_clean_image_changes_little() -> None:
    model = photo.load("restore", "restore", "cpu", None)
    assert all(psnr(repair(model, drawing(seed), 1.0, 0), drawing(seed)) > 33 for seed in range(2))


def test_tiles_leave_no_seam() -> None:
    model = photo.load("restore", "restore", "cpu", None)
    image = spoilt(np.tile(drawing(1), (2, 2, 1)), "noise:sigma=25")
    whole, tiled = (repair(model, image, 1.0, tile).astype(int) for tile in (0, 128))
    assert abs(whole - tiled).max() <= 1


def test_the_files_are_whole_and_small() -> None:
    model = store.locate("restore")
    assert store.verify_files(model).ok and "CC-BY" in (model.path / "NOTICE.txt").read_text()
    assert model.bytes < 12e6


def test_the_command_without_a_model(tmp_path: Path) -> None:
    bad = spoilt(drawing(0), "noise:sigma=25")
    Image.fromarray(bad).save(tmp_path / "noisy.png")
    done = dit("restore", "noisy.png", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == "noisy-restored.png\n", done.stderr
    assert psnr(load(tmp_path / "noisy-restored.png").samples, drawing(0)) > psnr(bad, drawing(0)) + 7
