"""How presets are chosen from what was measured, kept, and read again."""

from __future__ import annotations

import json

import pytest

from dit_tools.core import spec
from dit_tools.core.errors import InputError
from dit_tools.methods.caching import PRESETS
from dit_tools.models import cache_presets
from dit_tools.tasks.calibrate import presets
from dit_tools.tasks.calibrate.presets import Measured, choose_presets, merge_tables

FOUND = [
    Measured("output:interval=2", 0.55, 47.0),
    Measured("output:interval=3", 0.40, 37.0),
    Measured("taylorseer:interval=3", 0.40, 41.0),
    Measured("output:interval=6", 0.25, 24.0),
]


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """A data folder and a shipped table of the test's own."""
    monkeypatch.setattr(cache_presets, "own_table", lambda: tmp_path / "own" / "presets.json")
    monkeypatch.setattr(cache_presets, "SHIPPED", tmp_path / "shipped.json")
    return tmp_path / "own" / "presets.json"


def test_a_word_is_what_computes_least_and_keeps_its_fidelity_whole_calls_first():
    words = {row.word: row.spec for row in choose_presets(FOUND)}
    assert words == {
        "slow": "output:interval=2",
        "medium": "taylorseer:interval=3",
        "fast": "output:interval=3",
        "ultra": "output:interval=3",
    }


def test_words_that_nothing_keeps_are_no_cache():
    assert [row.spec for row in choose_presets([])] == ["none"] * 4
    assert choose_presets([])[0].to_json()["psnr"] is None
    assert list(presets.FIDELITY) == list(PRESETS)


def test_candidates_are_caches_that_need_no_file():
    for text in presets.CANDIDATES:
        assert spec.parse("caching", text).calibrated_by is None


def test_a_word_means_the_row_of_the_largest_count_of_steps_that_is_not_above(own):
    path = presets.save_presets("m", 20, choose_presets(FOUND))
    presets.save_presets("m", 50, choose_presets(FOUND[:1]))
    assert path == own
    assert list(json.loads(own.read_text())["m"]) == ["20", "50"]

    def meant(model, steps, word="medium"):
        return cache_presets.resolve_preset(word, model, steps, PRESETS)

    assert [meant("m", n) for n in (5, 20, 49)] == ["taylorseer:interval=3"] * 3
    assert meant("m", 50) == "output:interval=2"
    assert meant("m", 80, "slow") == "output:interval=2"
    assert meant("other", 20) == PRESETS["medium"]
    assert meant("m", 20, "output:interval=9") == "output:interval=9"


def test_the_users_table_is_before_the_shipped_one(own):
    table = merge_tables({}, "m", 20, [Measured("output:interval=4", 0.3, 30.0, "fast")])
    cache_presets.SHIPPED.write_text(presets.text_of(table))
    assert cache_presets.resolve_preset("fast", "m", 20, PRESETS) == "output:interval=4"
    presets.save_presets("m", 20, choose_presets(FOUND))
    assert cache_presets.resolve_preset("medium", "m", 20, PRESETS) == "taylorseer:interval=3"


@pytest.mark.parametrize("text", ["", "[]", '{"m": 1}', '{"m": {"x": {}, "1": {"fast": 2}}}'])
def test_damaged_tables_are_named(own, text):
    own.parent.mkdir()
    own.write_text(text)
    with pytest.raises(InputError, match="presets.json: no table of presets"):
        cache_presets.resolve_preset("fast", "m", 20, PRESETS)
