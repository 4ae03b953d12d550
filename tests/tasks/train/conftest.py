"""A recipe in miniature and images made here: trains in seconds on one core."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from dit_tools.tasks.train import recipe as recipes

TEXT = """
name = "tiny"
[data]
folder = "pictures"
size = 16
[autoencoder]
channels = [8, 8]
latent_channels = 4
batch_size = 8
pictures = 480
learning_rate = 5e-3
[tokenizer]
vocab_size = 64
[text_encoder]
d_model = 16
layers = 1
heads = 2
max_tokens = 6
[transformer]
width = 24
heads = 2
layers = 3
batch_size = 16
samples = 320
learning_rate = 3e-3
muon_learning_rate = 1e-2
warmup_steps = 2
ema_decay = 0.9
"""
COLOURS = ("red", "green", "blue", "orange")


def draw_pictures(folder: Path, count: int = 16) -> None:
    """Captioned circles of four colours, on transparency."""
    folder.mkdir(parents=True)
    for i in range(count):
        image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
        colour = COLOURS[i % 4]
        ImageDraw.Draw(image).ellipse((2, 2, 8 + i % 10, 8 + i % 10), fill=colour)
        image.save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(f"a {colour} circle\n", encoding="utf-8")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny.toml`` and its images."""
    folder = tmp_path_factory.mktemp("train")
    draw_pictures(folder / "pictures")
    (folder / "tiny.toml").write_text(TEXT, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny(place: Path) -> recipes.Recipe:
    """The recipe in miniature."""
    return recipes.load_recipe(place / "tiny.toml")
