"""The image-text model's training: a small run learns, stops and goes on, and writes graphs equal to torch."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dit_tools.models.clip import Clip64, buckets
from dit_tools.tasks.train import clip as training

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 220), "yellow": (240, 220, 40)}
RECIPE = training.ClipRecipe(
    captions="emoji/captions.jsonl",
    styles=("plain",),
    size=16,
    widths=(8, 8),
    blocks=(1, 1),
    features=8,
    batch_size=4,
    pictures=480,
    learning_rate=1e-2,
    seed=0,
)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight plain squares of each of four colours."""
    folder = tmp_path / "data/emoji"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "plain.zip", "w") as archive, (folder / "captions.jsonl").open("w") as lines:
        for name, colour in COLOURS.items():
            for i in range(8):
                content = io.BytesIO()
                Image.new("RGB", (16, 16), tuple(c - i for c in colour)).save(content, "PNG")
                archive.writestr(f"{name}{i}.png", content.getvalue())
                row = {
                    "file": f"plain.zip/{name}{i}.png",
                    "style": "plain",
                    "name": name,
                    "keywords": [name],
                    "group": "x",
                    "skin_tone": None,
                }
                lines.write(json.dumps(row) + "\n")
    monkeypatch.setenv("DIT_DATA", str(tmp_path / "data"))
    return tmp_path


def test_it_learns_goes_on_where_it_stopped_and_writes_its_graphs(data: Path) -> None:
    recipe = RECIPE
    whole = training.train_clip(recipe, data / "whole")
    assert whole["held_out"] == 4 and whole["held_out_retrieval"] >= 0.75
    training.train_clip(recipe, data / "halves", stop=60)
    training.train_clip(recipe, data / "halves")
    states = [torch.load(data / f"{n}/judge.pt", weights_only=True) for n in ("whole", "halves")]
    for name, value in states[0]["judge"].items():
        assert torch.equal(value, states[1]["judge"][name]), name
    graphs = Clip64(data / "whole")
    built = training.Clip(recipe)
    built.load_state_dict(states[0]["judge"])
    pixels = np.random.default_rng(0).random((3, 3, 16, 16), dtype=np.float32)
    with torch.no_grad():
        expected = built.picture(torch.from_numpy(pixels)).numpy()
        words = built.text(torch.from_numpy(buckets(["red", "blue"]))).numpy()
    np.testing.assert_allclose(graphs.pictures(pixels), expected, atol=5e-3)  # half precision
    np.testing.assert_allclose(graphs.texts(["red", "blue"]), words, atol=5e-3)
