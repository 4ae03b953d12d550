"""A small sibling: it shares everything but its transformer, and says so when it cannot."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dit_tools.core.errors import ModelError, UsageError
from dit_tools.tasks.train import checkpoint, latents, plot, small_variant
from dit_tools.tasks.train import recipe as recipes
from dit_tools.tasks.train.run import run
from dit_tools.tasks.train.training_run import TrainingRun
from tests.tasks.train.conftest import TEXT

SMALL = """
name = "small"
[data]
folder = "pictures"
size = 16
[transformer]
sibling_of = "{of}"
width = 16
heads = 2
layers = 2
batch_size = 16
samples = 320
learning_rate = 3e-3
muon_learning_rate = 1e-2
warmup_steps = 2
ema_decay = 0.9
"""


@pytest.fixture(scope="module")
def model(tiny: recipes.Recipe, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs with a finished ``tiny``."""
    folder = tmp_path_factory.mktemp("runs")
    short = dataclasses.replace(tiny, autoencoder=dataclasses.replace(tiny.autoencoder, pictures=80))
    run(short, TrainingRun(folder / "tiny"), None)
    return folder


def recipe(place: Path, of: str = "tiny") -> recipes.Recipe:
    path = place / "small.toml"
    path.write_text(SMALL.format(of=of), encoding="utf-8")
    return recipes.load_recipe(path)


@pytest.fixture(scope="module")
def small(model: Path, place: Path) -> Path:
    """The sibling's finished run, next to its model."""
    assert run(recipe(place), TrainingRun(model / "small", save_every=5), None)
    return model / "small"


def test_it_learns_and_shares_everything_but_the_transformer(model: Path, small: Path) -> None:
    rows = plot.read_rows(small)
    assert "autoencoder" not in rows
    assert rows["transformer"][-1]["loss"] < 0.95 * rows["transformer"][0]["loss"]
    assert not (small / latents.LATENTS_FILE).exists()  # those of its model were taken
    for part, name in (("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        a, b = (load_file(f / "pipeline" / part / f"{name}.safetensors") for f in (model / "tiny", small))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), part
    words = [(f / "pipeline/tokenizer/tokenizer.json").read_bytes() for f in (model / "tiny", small)]
    assert words[0] == words[1]
    config = json.loads((small / "pipeline/transformer/config.json").read_text(encoding="utf-8"))
    assert (config["num_layers"], config["in_channels"], config["sample_size"]) == (2, 4, 8)
    card = (small / "pipeline/README.md").read_text(encoding="utf-8")
    assert "Small sibling of tiny" in card


def test_it_resumes_to_the_bit(model: Path, small: Path, place: Path) -> None:
    assert run(recipe(place), TrainingRun(model / "halves", stop=7), None) is None
    run(recipe(place), TrainingRun(model / "halves", save_every=5), None)
    states = [checkpoint.load_checkpoint(folder / "transformer.pt") for folder in (small, model / "halves")]
    assert states[0] and states[1]
    for name, tensor in states[0]["networks"].items():
        assert torch.equal(tensor, states[1]["networks"][name]), name


def start(place: Path, name: str, width: int = 24) -> recipes.Recipe:
    """A recipe whose transformer begins as ``name``'s."""
    sizes = f'start_from = "{name}"\nwidth = {width}\nheads = 2\nlayers = 3'
    text = SMALL.replace("width = 16\nheads = 2\nlayers = 2", sizes).replace("small", "more")
    path = place / "more.toml"
    path.write_text(
        text.format(of=name).replace("learning_rate = 3e-3", "learning_rate = 1e-9").replace("1e-2", "1e-9"),
        encoding="utf-8",
    )
    return recipes.load_recipe(path)


def test_it_goes_on_from_a_models_transformer(model: Path, place: Path) -> None:
    assert run(start(place, "tiny"), TrainingRun(model / "more"), None)
    folders = (model / "tiny/pipeline", model / "more/pipeline")
    file = "transformer/diffusion_pytorch_model.safetensors"
    before, after = (load_file(folder / file) for folder in folders)
    for name, tensor in before.items():  # at a rate of nothing it stays what it began with
        assert torch.allclose(tensor, after[name], atol=1e-6), name


def test_a_start_of_other_sizes_is_refused(model: Path, place: Path) -> None:
    with pytest.raises(ModelError, match="its transformer has other sizes; give the recipe"):
        run(start(place, "tiny", width=16), TrainingRun(model / "wide"), None)
    with pytest.raises(ModelError, match="start_from = 'gone': no such run"):
        small_variant.resolve_parent(
            dataclasses.replace(
                recipe(place), transformer=dataclasses.replace(recipe(place).transformer, start_from="gone")
            ),
            model / "small",
        )
    alone = TEXT.replace("[transformer]", '[transformer]\nstart_from = "x"')
    (place / "alone.toml").write_text(alone, encoding="utf-8")
    with pytest.raises(recipes.RecipeError, match="start_from without sibling_of"):
        recipes.load_recipe(place / "alone.toml")


def test_a_built_in_model_and_a_path_are_found_too(model: Path, place: Path) -> None:
    by_path = small_variant.resolve_parent(recipe(place, str(model / "tiny")), place / "runs/small")
    assert by_path.transformer.sibling_of == str((model / "tiny/pipeline").resolve())
    assert by_path == small_variant.resolve_parent(by_path, place / "elsewhere/small")
    built_in = recipe(place, "emoji")
    built_in = dataclasses.replace(built_in, data=dataclasses.replace(built_in.data, size=128))
    made = small_variant.resolve_parent(built_in, place / "runs/small")
    assert (made.autoencoder.channels, made.text_encoder.max_tokens) == ((8, 16, 32, 96, 192), 12)
    assert small_variant.load_parent(made).text_encoder.dtype == torch.float32


def test_what_cannot_be_is_one_line_with_its_remedy(model: Path, small: Path, place: Path) -> None:
    with pytest.raises(ModelError, match="no such run or model"):
        small_variant.resolve_parent(recipe(place, "gone"), model / "small")
    with pytest.raises(ModelError, match="is this run itself"):
        small_variant.resolve_parent(recipe(place, "small"), small)
    with pytest.raises(ModelError, match="draws 128 px, the recipe 16; set size = 128"):
        small_variant.resolve_parent(recipe(place, "emoji"), model / "small")
    with pytest.raises(UsageError, match="uses the autoencoder of its parent"):
        run(recipe(place), TrainingRun(model / "other"), None, "autoencoder")
    both = TEXT.replace("[transformer]", '[transformer]\nsibling_of = "x"')
    (place / "both.toml").write_text(both, encoding="utf-8")
    with pytest.raises(recipes.RecipeError, match=r"\[autoencoder\] is taken from sibling_of"):
        recipes.load_recipe(place / "both.toml")


def test_an_unfinished_model_and_one_that_changed_are_refused(
    model: Path, small: Path, place: Path, tmp_path: Path
) -> None:
    for name in ("tiny", "small"):
        shutil.copytree(model / name, tmp_path / name)
    log = tmp_path / "tiny/log.jsonl"
    whole = log.read_text(encoding="utf-8")
    log.write_text(whole.replace('"steps": 20', '"steps": 90'), encoding="utf-8")
    with pytest.raises(ModelError, match="not finished \\(step 20 of 90\\)"):
        run(recipe(place), TrainingRun(tmp_path / "small"), None)
    log.write_text(whole, encoding="utf-8")
    path = tmp_path / "small/transformer.pt"
    state = checkpoint.load_checkpoint(path)
    assert state
    state["networks"]["text_encoder.shared.weight"] += 1
    checkpoint.save_checkpoint(path, state)
    with pytest.raises(ModelError, match="made by another recipe"):
        run(recipe(place), TrainingRun(tmp_path / "small"), None)
