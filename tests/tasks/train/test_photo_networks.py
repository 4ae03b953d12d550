"""Networks for photographs learn, stop and go on to the bit, and refuse what is wrong."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dit_tools.core.errors import InputError, ModelError
from dit_tools.tasks.train import checkpoint, photo_networks, photo_recipe, photographs
from dit_tools.tasks.train.training_run import Interrupted, TrainingRun
from tests.support.photographs import scene
from tests.support.program import dit

SUPERRES = """
name = "tiny"
task = "superres"
[[data]]
archive = "photos.tar"
[network]
width = 8
blocks = [1]
scales = [2]
[training]
patch = 16
batch_size = 4
steps = 40
warmup_steps = 4
ema_decay = 0.8
scale_shares = [1.0]
"""
RESTORE = """
name = "tiny"
task = "restore"
[[data]]
archive = "photos.tar"
[network]
widths = [16, 24]
blocks = [1, 1]
[training]
patch = 32
batch_size = 4
steps = 120
warmup_steps = 4
ema_decay = 0.9
[[mix]]
degrade = "noise:sigma=40"
share = 1.0
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with tarfile.open(folder / "photos.tar", "w") as archive:
        for seed in range(4):
            stored = io.BytesIO()
            Image.fromarray((scene(96, 128, seed) * 255).astype(np.uint8)).save(stored, "PNG")
            add(archive, f"a/{seed}.png", stored.getvalue())
        add(archive, "a/broken.png", b"not an image")
        add(archive, "notes.txt", b"not one either")
    return folder


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def trained(run: Path, text: str, data: Path, **options) -> Path:
    recipe = photo_recipe.load(recipe_file(data, text))
    return photo_networks.train(recipe, TrainingRun(run, dtype="float32", save_every=10, **options), str(data))


def test_a_stopped_run_goes_on_to_the_bit(tmp_path, data) -> None:
    trained(tmp_path / "whole", SUPERRES, data)
    with pytest.raises(Interrupted):
        trained(tmp_path / "parts", SUPERRES, data, stop=17)
    trained(tmp_path / "parts", SUPERRES, data)
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    states = [checkpoint.load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts")]
    assert states[0] and states[1] and states[0]["step"] == states[1]["step"] == 40
    for name, value in states[0]["average"].items():
        assert torch.equal(value, states[1]["average"][name]), name


def test_each_part_of_a_run_warms_up_and_decays() -> None:
    training = photo_recipe.Training(steps=300, earlier=(100,), warmup_steps=10, decay_fraction=0.5)
    rates = [photo_networks._rate(training, step) for step in range(300)]
    assert rates[0] == rates[100] == 0.1 and rates[49] == rates[199] == 1
    assert rates[99] == pytest.approx(1 / 50) and rates[299] == pytest.approx(1 / 100)
    alone = photo_recipe.Training(steps=100, warmup_steps=10, decay_fraction=0.5)
    assert rates[:100] == [photo_networks._rate(alone, step) for step in range(100)]


def test_a_restorer_learns_to_denoise(tmp_path, data) -> None:
    weights = trained(tmp_path, RESTORE, data)
    recipe = photo_recipe.load(data / "recipe.toml")
    network = photo_networks.build(recipe)
    network.load_state_dict({k: v.float() for k, v in load_file(weights).items()})
    archives = [photographs.read(each, data, lambda event: None) for each in recipe.data]
    given, wanted = photographs.Patches(recipe, archives).restoring(999)
    with torch.no_grad():
        found = network(torch.from_numpy(given).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert np.square(found - wanted).mean() < 0.7 * np.square(wanted).mean()  # more than 1.5 dB


def test_pairs_are_an_input_and_what_it_lacks(data) -> None:
    recipe = photo_recipe.load(recipe_file(data, SUPERRES))
    told: list[dict] = []
    archives = [photographs.read(each, data, told.append) for each in recipe.data]
    assert len(archives[0]) == 4 and [event["file"].rpartition(":")[2] for event in told] == ["a/broken.png"]
    patches = photographs.Patches(recipe, archives)
    scale, given, wanted = patches.upscaling(3)
    again = patches.upscaling(3)
    assert scale == 2 and given.shape == (4, 16, 16, 3) and wanted.shape == (4, 32, 32, 3)
    assert (given == again[1]).all() and (wanted == again[2]).all()
    assert (patches.upscaling(4)[1] != given).any()
    from dit_tools.media.resample import cubic

    # Inside, where the cubic filter does not see the patch's edge, base + residual is 8-bit samples.
    large = (cubic(given[0], (32, 32)) + wanted[0])[6:-6, 6:-6] * 255
    assert abs(large - large.round()).max() < 1e-3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('task = "superres"', 'task = "supperres"', "use one of superres, restore"),
        ("steps = 40", "stpes = 40", "did you mean 'steps'"),
        ("scale_shares = [1.0]", "scale_shares = [1.0, 2.0]", "differ in length"),
        ("batch_size = 4", "batch_size = 0", "below 1"),
        ("steps = 40", "steps = 40\nearlier = [50]", "do not rise"),
        ('archive = "photos.tar"', "", "missing"),
        ("name = ", "nam = ", "did you mean 'name'"),
        ("[network]", "[netwerk]", "did you mean 'network'"),
        ("name", "= name", "cannot be read"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path, old, new, said) -> None:
    with pytest.raises(InputError, match=said):
        photo_recipe.load(recipe_file(tmp_path, SUPERRES.replace(old, new, 1)))


def test_a_restorer_needs_a_mix_and_a_fitting_patch(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no \[\[mix\]\]"):
        photo_recipe.load(recipe_file(tmp_path, RESTORE.partition("[[mix]]")[0]))
    with pytest.raises(InputError, match="multiple of 4"):
        photo_recipe.load(recipe_file(tmp_path, RESTORE.replace("patch = 32", "patch = 33")))


@pytest.mark.parametrize("name", ["superres", "restore"])
def test_the_recipes_of_the_built_in_networks_are_read(name) -> None:
    from dit_tools.models.photo import BUILTIN

    recipe = photo_recipe.load(BUILTIN / name / "recipe.toml")
    assert recipe.name == recipe.task == name
    archives = {each.archive for each in recipe.data}
    assert archives == {"photos/cc0_photos.tar", "photos/cc0_budgie.tar", "clothing/clothing_cc0.tar"}


def test_no_data_and_another_recipe_are_told(tmp_path, data, monkeypatch) -> None:
    monkeypatch.delenv("DIT_DATA", raising=False)
    recipe = photo_recipe.load(recipe_file(data, SUPERRES))
    with pytest.raises(InputError, match="--data FOLDER"):
        photo_networks.train(recipe, TrainingRun(tmp_path, dtype="float32"))
    with pytest.raises(InputError, match=r"photos\.tar: cannot be read"):
        photo_networks.train(recipe, TrainingRun(tmp_path, dtype="float32"), str(tmp_path))
    with pytest.raises(Interrupted):
        trained(tmp_path / "run", SUPERRES, data, stop=1)
    with pytest.raises(ModelError, match="made by another recipe"):
        trained(tmp_path / "run", SUPERRES.replace("width = 8", "width = 16"), data)


def test_the_command_trains_stops_goes_on_and_its_model_serves(tmp_path, data) -> None:
    words = ("train", recipe_file(data, SUPERRES), "--data", data, "-o", "run", "--dtype", "float32")
    stopped = dit(*words, "--max-steps", "7", cwd=tmp_path)
    assert stopped.returncode == 0 and "the same command continues" in stopped.stderr
    done = dit(*words, "-q", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "run/model", done.stderr
    Image.fromarray((scene() * 255).astype(np.uint8)).save(tmp_path / "small.png")
    made = dit("superres", "small.png", "-m", "run/model", "--scale", "2", "-o", "big.png", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert Image.open(tmp_path / "big.png").size == (192, 144)
    refused = dit(*words, "--objective", "logit-normal", cwd=tmp_path)
    assert refused.returncode == 2 and "--objective: not for a network for photographs" in refused.stderr
