"""The comparison of adapters: all of the category, and one cell measured for real."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import adapters
from dit_tools.core.registry import names


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    """Two groups of three images each, and the built-in model."""
    for group in (adapters.FEW, adapters.OTHER):
        (tmp_path / group).mkdir()
        random = np.random.default_rng(0)
        for i, name in enumerate(("cat face", "red apple", "rocket")):
            pixels = random.integers(0, 255, (128, 128, 4), np.uint8)
            Image.fromarray(pixels, "RGBA").save(tmp_path / group / f"{i}.png")
            (tmp_path / group / f"{i}.txt").write_text(name, encoding="utf-8")
    return argparse.Namespace(
        folder=tmp_path, base="emoji", size=128, style="noto", pictures=8, count=3, few=3, seeds=1
    )


def test_every_adapter_of_the_room_is_compared() -> None:
    assert {text.partition(":")[0] for text in adapters.RATES} == set(names("adapters"))
    assert adapters.REFERENCE in adapters.RATES


def test_a_cell_is_trained_measured_and_kept(options: argparse.Namespace) -> None:
    none = adapters.cell(options, adapters.NONE, 0)
    made = adapters.cell(options, "difffit", 0)
    assert none["kB"] == 0 < made["kB"] and made["loss"] != none["loss"]
    assert none["frechet"] > 0 and none["loss new"] > 0 and 0 <= none["found"] <= 100
    kept = options.folder / "cells/difffit-0.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == made
    assert adapters.cell(options, "difffit", 0) == made
    text = adapters.table({"lora": [none] * 3, "difffit": [made] * 3}, options)
    assert "| lora | 3 |" in text and "kB worse" in text
