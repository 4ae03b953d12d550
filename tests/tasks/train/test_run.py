"""A whole run in miniature: it learns, resumes to the bit, and leaves what it should."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dit_tools.core.errors import InputError, ModelError
from dit_tools.tasks.train import autoencoder, checkpoint, latents, plot, text_to_image
from dit_tools.tasks.train.recipe import Recipe
from dit_tools.tasks.train.run import run
from dit_tools.tasks.train.training_run import Diverged, Interrupted, TrainingRun, check_space


class StopsAfter:
    """Interrupts that ask to stop after so many looks."""

    def __init__(self, looks: int):
        self.looks = looks

    @property
    def stop_requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def state(folder: Path, name: str) -> dict[str, Any]:
    found = checkpoint.load_checkpoint(folder / name)
    assert found is not None
    return found


def same(a: Any, b: Any) -> bool:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module")
def whole(tiny: Recipe, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(tiny, TrainingRun(folder, save_every=5), place / "tiny.toml") == folder / "pipeline"
    return folder


def test_both_losses_fall(whole: Path) -> None:
    rows = plot.read_rows(whole)
    for stage, steps in (("autoencoder", 60), ("transformer", 20)):
        assert rows[stage][-1]["loss"] < 0.9 * rows[stage][0]["loss"]
        assert rows[stage][-1]["step"] == rows[stage][-1]["steps"] == steps
    assert rows["autoencoder"][-1]["psnr"] > rows["autoencoder"][0]["psnr"]


def test_a_run_that_is_stopped_in_both_stages_resumes_to_the_bit(whole: Path, tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tiny, TrainingRun(tmp_path, save_every=5, interrupts=StopsAfter(23)), None)
    assert state(tmp_path, "vae.pt")["step"] == 24
    with pytest.raises(Interrupted):  # 36 steps of the autoencoder, then 7 of the transformer
        run(tiny, TrainingRun(tmp_path, save_every=5, interrupts=StopsAfter(36 + 6)), None)
    assert state(tmp_path, "transformer.pt")["step"] == 7
    run(tiny, TrainingRun(tmp_path, save_every=5), None)
    for name in ("vae.pt", "transformer.pt"):
        assert same(state(whole, name), state(tmp_path, name)), name


def test_what_a_run_leaves(whole: Path, tiny: Recipe) -> None:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(whole / "pipeline")
    picture = pipe("red circle", height=16, width=16, num_inference_steps=2, use_resolution_binning=False).images[0]
    assert picture.size == (16, 16) and picture.mode == "RGBA"
    for name in ("loss.png", "sheet-000020.png"):
        with Image.open(whole / name) as image:
            assert np.asarray(image.convert("L")).std() > 1
    card = (whole / "pipeline/README.md").read_text(encoding="utf-8")
    assert "Step 20 of 20, 320 images seen" in card and "vocab_size = 64" in card
    assert not list(whole.glob("*.part")) and not list(whole.glob("*.tmp"))
    for line in (whole / "log.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["images_per_second"] > 0


def test_latents_are_cached_and_belong_to_their_data(whole: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(whole / "vae")
    data = np.random.default_rng(0).integers(0, 255, (3, 4, 16, 16), dtype=np.uint8)
    folder = tmp_path / "not" / "made yet"
    made = latents.cached_latents(folder, vae, data)
    assert torch.equal(made, autoencoder.encode(vae, data))
    stamp = (folder / latents.LATENTS_FILE).stat().st_mtime_ns
    assert torch.equal(latents.cached_latents(folder, vae, data), made)
    assert (folder / latents.LATENTS_FILE).stat().st_mtime_ns == stamp
    assert not torch.equal(latents.cached_latents(folder, vae, data[::-1].copy()), made)


def test_another_recipe_is_refused_and_the_checkpoint_stays(whole: Path, tiny: Recipe) -> None:
    other = dataclasses.replace(tiny, transformer=dataclasses.replace(tiny.transformer, layers=2))
    before = (whole / "transformer.pt").read_bytes()
    with pytest.raises(ModelError, match="made by another recipe"):
        run(other, TrainingRun(whole), None)
    assert (whole / "transformer.pt").read_bytes() == before


def test_a_damaged_checkpoint_is_named(tiny: Recipe, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "vae.pt").write_bytes((whole / "vae.pt").read_bytes()[:1000])
    with pytest.raises(ModelError, match="vae.pt: damaged checkpoint"):
        run(tiny, TrainingRun(tmp_path), None)


def test_divergence_stops_the_run_and_says_what_to_do(tiny: Recipe, tmp_path: Path) -> None:
    wild = dataclasses.replace(tiny.autoencoder, learning_rate=1e30)
    with pytest.raises(Diverged, match="lower the learning rate"):
        run(dataclasses.replace(tiny, autoencoder=wild), TrainingRun(tmp_path), None)


def test_a_disk_that_is_too_small_is_found_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="checkpoints need"):
        check_space(tmp_path / "not/yet", 10**18)


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="x.pt: cannot be written: "):
        checkpoint.save_checkpoint(tmp_path / "file/x.pt", {"step": 1})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint.save_checkpoint(tmp_path / "x.pt", {"step": 1})
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="x.pt: cannot be written: the disk is full"):
        checkpoint.save_checkpoint(tmp_path / "x.pt", {"step": 2})
    assert checkpoint.load_checkpoint(tmp_path / "x.pt") == {"step": 1}
    assert [path.name for path in tmp_path.glob("*.tmp")] == []


def test_samples_show_captions_of_the_users_pictures(tiny: Recipe) -> None:
    from dit_tools.tasks.train.dataset import Caption

    captions = [Caption("", f"thing {i:03d}", (), "") for i in range(100)]
    prompts = text_to_image.sheet_prompts(tiny, captions)
    assert 10 <= len(prompts) <= 16 and set(prompts) <= {c.name for c in captions}
