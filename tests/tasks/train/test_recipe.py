"""A whole recipe in miniature: autoencoder, tokenizer, transformer, on images made here."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import zipfile
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from dit_tools.core.errors import UsageError
from dit_tools.tasks.train import builtin_recipes
from dit_tools.tasks.train import recipe as recipes

RECIPE = builtin_recipes.find("emoji")
COLOURS = ("red", "green", "blue", "orange")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen captioned images in the format of the real data."""
    root = tmp_path_factory.mktemp("data")
    (root / "emoji").mkdir()
    rows = []
    with zipfile.ZipFile(root / "emoji/fluent3d.zip", "w") as archive:
        for i in range(16):
            image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
            colour = COLOURS[i % 4]
            ImageDraw.Draw(image).ellipse((4, 4, 12 + i, 12 + i), fill=colour)
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            archive.writestr(f"{i}.png", buffer.getvalue())
            rows.append(
                {
                    "file": f"fluent3d.zip/{i}.png",
                    "style": "fluent3d",
                    "name": f"{colour} circle",
                    "keywords": ["shape", "round_thing"],
                    "group": "Symbols",
                    "skin_tone": None,
                }
            )
    text = "\n".join(json.dumps(row) for row in rows)
    (root / "emoji/captions.jsonl").write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def emoji(data: Path, monkeypatch: pytest.MonkeyPatch) -> recipes.Recipe:
    monkeypatch.setenv("DIT_DATA", str(data))
    full = recipes.load_recipe(RECIPE)
    replace = dataclasses.replace
    return replace(
        full,
        data=replace(full.data, size=16),
        autoencoder=replace(
            full.autoencoder, channels=(8, 8), latent_channels=4, batch_size=8, pictures=2400, learning_rate=5e-3
        ),
        tokenizer=recipes.Tokenizer(64),
        text_encoder=replace(full.text_encoder, d_model=32, layers=1, heads=2, max_tokens=6),
        transformer=replace(
            full.transformer,
            width=32,
            heads=2,
            layers=2,
            batch_size=16,
            samples=160,
            warmup_steps=2,
            learning_rate=3e-3,
            muon_learning_rate=1e-2,
        ),
    )


def test_the_shipped_recipe_states_every_key() -> None:
    assert recipes.load_recipe(RECIPE).name == "emoji"


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(RECIPE.read_text(encoding="utf-8").replace("ema_decay", "emma_decay"))
    with pytest.raises(ValueError, match="emma_decay"):
        recipes.load_recipe(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("ema_decay = 0.998", "ema_decay = 1.5"), "ema_decay = 1.5 is out of range"),
        (("patch_size = 2", "patch_size = 3"), "give a multiple of 48"),
        (("width = 256", 'width = "wide"'), "give a whole number"),
        (("seed = 0", "seed = 0\nsede = 1"), "unknown key 'sede'; did you mean 'seed'"),
        (('captions = "emoji', 'folder = "x"\ncaptions = "emoji'), "folder or captions"),
        (("[transformer]", "[transformer]\nobjectives = ['srra']"), "no method 'srra'"),
        (('name = "emoji"', 'name = "../up"'), "is no folder name"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(change, words, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    text = RECIPE.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change, 1), encoding="utf-8")
    with pytest.raises(UsageError if "method" in words else recipes.RecipeError) as caught:
        recipes.load_recipe(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_short_recipe_has_defaults_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('name = "mine"\n[data]\nfolder = "pictures"\nsize = 64\n', encoding="utf-8")
    made = recipes.load_recipe(path)
    assert made.data.folder == str(tmp_path / "pictures")
    assert made.transformer == recipes.Transformer() and made.side == 8


def test_normalizing_the_latents_changes_no_picture(emoji: recipes.Recipe) -> None:
    import torch

    from dit_tools.tasks.train import autoencoder, dataset

    torch.manual_seed(0)
    model = autoencoder.build_autoencoder(emoji)
    data, _ = dataset.read_dataset(emoji.data, skin_tones=True)
    with torch.no_grad():
        before = model.decode(autoencoder.encode(model, data)).sample
        autoencoder.normalize(model, data)
        after = model.decode(autoencoder.encode(model, data)).sample
    assert (before - after).abs().max() < 1e-4
    assert (autoencoder.encode(model, data).std(dim=(0, 2, 3)) - 1).abs().max() < 1e-3


def test_prompts_name_every_style_but_the_default(emoji: recipes.Recipe) -> None:
    from dit_tools.tasks.train.dataset import Caption, prompt

    other = Caption("fluentflat", "red heart", ("love", "like"), "Symbols")
    default = dataclasses.replace(other, style="fluent3d")
    rng = random.Random(0)
    assert all("flat" in prompt(other, emoji.data, rng) for _ in range(100))
    named = sum("3d" in prompt(default, emoji.data, rng) for _ in range(300))
    assert 60 < named < 140


def test_adaptive_normalization_is_shared_by_the_blocks(emoji: recipes.Recipe) -> None:
    """PixArt's block: 6 D^2 once and 6 D a block, where a block of its own would have 6 D^2."""
    from dit_tools.tasks.train.networks import Networks

    width, layers = 64, 8
    sized = dataclasses.replace(emoji.transformer, width=width, layers=layers)
    made = Networks(dataclasses.replace(emoji, transformer=sized), 64).transformer
    named = list(made.named_parameters())
    shared = sum(p.numel() for n, p in named if n.startswith("adaln_single.linear"))
    tables = sum(p.numel() for n, p in named if "blocks" in n and "scale_shift_table" in n)
    assert shared == 6 * width * (width + 1) and tables == layers * 6 * width
    assert not any("norm" in n for n, _ in named if "blocks" in n)
    assert shared + tables <= (1 / layers + 0.02) * layers * 6 * width * (width + 1)


def test_sections_of_an_adapter_are_checked(tmp_path: Path) -> None:
    text = 'name = "x"\n[data]\nfolder = "p"\nsize = 50\n[adapter]\nmodel = "emoji"\n'
    path = tmp_path / "x.toml"
    path.write_text(text, encoding="utf-8")
    assert recipes.load_recipe(path).adapter.method == "lora"  # and 50 px are the model's own affair
    for change, words in (('model = "emoji"', "samples = 9"), ("[adapter]", "[transformer]\nwidth = 8\n[adapter]")):
        path.write_text(text.replace(change, words), encoding="utf-8")
        with pytest.raises(recipes.RecipeError, match=r"no key 'model'|\[adapter\] trains no"):
            recipes.load_recipe(path)
    path.write_text(text + 'method = "laura"\n', encoding="utf-8")
    with pytest.raises(UsageError, match="--adapter: no method 'laura'; did you mean 'lora'"):
        recipes.load_recipe(path)
