"""``dit restore --task inpaint|colorize`` with the built-in text-to-image model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dit_tools.media import metadata
from tests.support.photographs import schemas
from tests.support.program import dit

STEPS = ("--steps", "8", "-m", "emoji", "-p", "red heart")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with an image that the model knows, with a hole and without colours."""
    folder = tmp_path_factory.mktemp("zero-shot")
    made = dit("generate", "red heart", "-o", "heart.png", "--steps", "8", "--seed", "5", cwd=folder)
    assert made.returncode == 0, made.stderr
    pixels = np.asarray(Image.open(folder / "heart.png").convert("RGB"))
    mask = np.zeros((128, 128), np.uint8)
    mask[50:85, 45:90] = 255
    hole = pixels.copy()
    hole[mask > 0] = (0, 0, 255)
    (folder / "masks").mkdir()
    for name, array in (("hole.png", hole), ("masks/hole.png", mask), ("grey.png", pixels.mean(axis=2).round())):
        Image.fromarray(array.astype(np.uint8)).save(folder / name)
    Image.fromarray(np.zeros_like(mask)).save(folder / "black.png")
    return folder


def loaded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), float)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a - b).mean()))


@pytest.mark.parametrize("method", ["ddnm", "flowchef", "steered:repeats=1", "red-diff"])
def test_a_hole_is_filled_and_the_rest_stays_bit_for_bit(place, tmp_path, method) -> None:
    words = ("restore", "hole.png", "--task", "inpaint", "--mask", "masks", "--method", method, *STEPS)
    done = dit(*words, "-o", tmp_path / "made.png", "--json", "--reference", "heart.png", cwd=place)
    assert done.returncode == 0, done.stderr
    made, hole, truth = (loaded(p) for p in (tmp_path / "made.png", place / "hole.png", place / "heart.png"))
    mask = np.asarray(Image.open(place / "masks/hole.png")) > 0
    assert (made[~mask] == hole[~mask]).all()
    assert psnr(made[mask], truth[mask]) > psnr(hole[mask], truth[mask]) + 8
    item = json.loads(done.stdout.splitlines()[1])
    assert item["psnr"] == pytest.approx(psnr(made, truth), abs=2e-3) and item["calls"] >= 8
    record = metadata.read_record(tmp_path / "made.png")
    events_schema, record_schema = schemas()
    events_schema.validate(item)
    record_schema.validate(record)
    assert record and record["method"].startswith(method.partition(":")[0]) and record["mask"] == "masks"


def test_colours_are_found_and_the_brightness_is_kept(place, tmp_path) -> None:
    done = dit("restore", "grey.png", "--task", "colorize", *STEPS, "-o", tmp_path / "made.png", cwd=place)
    assert done.returncode == 0, done.stderr
    made, grey, truth = (loaded(p) for p in (tmp_path / "made.png", place / "grey.png", place / "heart.png"))
    red = truth[..., 0] - truth[..., 2] > 100
    assert (made[..., 0] - made[..., 2])[red].mean() > 60  # the heart is red
    unclipped = ((made > 0) & (made < 255)).all(axis=2)
    assert abs(made.mean(axis=2) - grey.mean(axis=2))[unclipped].max() <= 1


def test_a_deep_photograph_of_another_size_with_alpha(place, tmp_path) -> None:
    import cv2

    rng = np.random.default_rng(0)
    deep = (rng.random((150, 90, 4)) * 65535).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    words = ("--task", "inpaint", "--mask", "20,30,10,10", "--steps", "2", "-m", "emoji")
    done = dit("restore", "deep.png", *words, "-o", "made.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = cv2.imread(str(tmp_path / "made.png"), cv2.IMREAD_UNCHANGED)
    changed = (made != deep).any(axis=2)
    assert made.dtype == np.uint16 and (made[..., 3] == deep[..., 3]).all()
    assert changed[30:40, 20:30].all() and changed.sum() == 100


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--task", "inpaint", "--mask", "1,1,5,5"), 2, "--task inpaint: needs a text-to-image model"),
        (("--task", "inpaint", "-m", "emoji"), 2, "--task inpaint: needs --mask"),
        (("--task", "colorize", "-m", "emoji", "--mask", "1,1,5,5"), 2, "takes no --mask"),
        (("--task", "inpaint", "-m", "emoji", "--mask", "black.png"), 4, "the mask is black"),
        (("--task", "inpaint", "-m", "emoji", "--mask", "nowhere.png"), 4, "nowhere.png"),
        (("--task", "inpaint", "-m", "emoji", "--mask", "masks"), 4, "nothing named grey"),
        (("--task", "inpaint", "-m", "emoji", "--mask", "1,1,5,5", "--strength", "0.5"), 2, "--strength: not for"),
        (("--task", "inpaint", "-m", "emoji", "--mask", "1,1,5,5", "--seed", "1,2"), 2, "give one seed"),
        (("--task", "inpaint", "-m", "emoji", "--mask", "1,1,5,5", "--method", "ddnn"), 2, "did you mean 'ddnm'"),
        (("--prompt", "a cat"), 2, "--prompt: not for --task auto"),
        (("--mask", "1,1,5,5"), 2, "--mask: not for --task auto"),
    ],
)
def test_mistakes_are_one_clear_line(place, words, code, said) -> None:
    done = dit("restore", "grey.png", *words, cwd=place)
    assert done.returncode == code, done.stderr
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1
