"""The comparison of objectives: its words follow from its numbers, and it goes on where it was."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import objectives
from dit_tools.core.registry import get, names

OPTIONS = {
    "size": 128,
    "groups": ["Food & Drink"],
    "base": "emoji",
    "width": 64,
    "layers": 4,
    "pictures": 64,
    "count": 8,
    "autoencoder_pictures": 64,
    "encoder": "patches",
}


def test_every_objective_of_the_room_is_compared() -> None:
    default = {"logit-normal"}  # is the plain training
    known = {
        text.partition(":")[0]
        for part in (objectives.VARIANTS, objectives.WHOLE)
        for texts in part.values()
        for text in texts
    }
    assert known | default == set(names("objectives"))
    assert {get("objectives", n).stage for n in objectives.WHOLE if n in known} == {"autoencoder"}


@pytest.mark.parametrize(
    ("plain", "other", "word"),
    [
        ([3.0, 3.1, 3.2], [2.0, 2.1, 2.2], "better"),
        ([3.0, 3.1, 3.2], [3.5, 3.6, 3.7], "worse"),
        ([3.0, 3.1, 3.2], [2.9, 3.0, 3.1], "within the seed spread"),
        ([3.0, 3.0, 3.0], [2.0, 2.5, 3.5], "within the seed spread"),  # its own seeds differ more
        ([3.0], [2.0], "too few seeds"),
    ],
)
def test_a_gain_smaller_than_the_seeds_spread_is_called_so(plain, other, word) -> None:
    assert objectives.verdict(plain, other, -1) == word


def test_the_table_is_put_between_its_marks(tmp_path: Path) -> None:
    rows = [{"loss": 1.0, "frechet": 2.0 + i / 10, "frechet few": 3.0, "retrieval": 50.0} for i in range(3)]
    better = [{**row, "loss": 0.5} for row in rows]
    options = argparse.Namespace(**OPTIONS)
    text = objectives.table({"plain": rows, "sra": better}, options)
    assert "| plain | 3 | 1 (1 to 1) | 2.1 (2 to 2.2) |" in text and "| reference |" in text
    assert "| loss better; frechet within the seed spread;" in text
    page = tmp_path / "page.md"
    page.write_text(f"a\n{objectives.BEGIN}\nold\n{objectives.END}\nb\n", encoding="utf-8")
    objectives.write(page, text)
    made = page.read_text(encoding="utf-8")
    assert made == f"a\n{objectives.BEGIN}\n{text}{objectives.END}\nb\n"


def test_a_cell_that_is_done_is_read_and_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells/sra-1.json").write_text(json.dumps({"loss": 7}), encoding="utf-8")
    options = argparse.Namespace(folder=tmp_path, **OPTIONS)
    assert objectives.cell(options, "sra", 1) == {"loss": 7}
    assert objectives.recipe(options, "sra", 1).transformer.objectives == ("sra",)
    whole = objectives.recipe(options, "variance-expansion", 0)
    assert whole.autoencoder.objectives and not whole.transformer.sibling_of
