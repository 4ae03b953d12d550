"""Hooks of the library as rivals: they skip, start again, and change nothing at their identity."""

from __future__ import annotations

import math

import pytest

from benchmarks.acceleration import measure
from benchmarks.acceleration_report import front
from benchmarks.rivals import full_calls, installed, parse
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from tests.benchmarks.test_acceleration import FEWER, Row
from tests.support import pixart


def test_specs_of_rivals():
    assert parse("taylorseer:interval=3,order=2") == ("taylorseer", {"interval": 3, "order": 2})
    assert parse("magcache") == ("magcache", {})
    with pytest.raises(ValueError, match="choose from first-block"):
        parse("someone")
    assert installed("magcache")


def test_rivals_are_measured_on_a_copy_and_count_their_blocks():
    model = model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")
    runs = (
        "rival=first-block:threshold=0",
        "rival=first-block:threshold=9",
        "rival=taylorseer:interval=3",
        "rival=magcache:threshold=9",
        "cache=ertacache:threshold=1",
    )
    exact, bold, taylor, magnitude, calibrated = measure(model, ("a",), runs, 8, 1)[-5:]
    assert exact.psnr == math.inf and exact.computed == 3 * 8
    for row in (bold, taylor, magnitude):
        assert math.isfinite(row.psnr) and row.computed < 3 * 8
    assert calibrated.skipped > 0
    registry = getattr(model.network.module.transformer_blocks[0], "_diffusers_hook", None)
    assert registry is None or not registry.hooks


def test_the_front_is_what_nothing_beats():
    rows = [*FEWER, Row("a", 1, 0, 0, 2.0, 40.0, 0.9), Row("b", 1, 0, 0, 3.0, 25.0, 0.9)]
    assert front(rows) == {"a", "b", "steps=10"}


def test_cache_dit_computes_the_calls_that_ours_computes():
    pytest.importorskip("cache_dit")
    model = model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")
    runs = (
        "rival=dbcache:threshold=0",
        "cache=first-block:threshold=9",
        "rival=dbcache:threshold=9",
        "cache=taylorseer:interval=3",
        "rival=dbcache:interval=3,order=1",
        "rival=dbcache:interval=3",
    )
    exact, ours, theirs, series, forecast, kept = measure(model, ("a",), runs, 12, 1)[-6:]
    assert exact.psnr == math.inf and exact.computed == 3 * 12
    assert ours.computed == theirs.computed == 3 * 2 + 10
    assert theirs.psnr == pytest.approx(ours.psnr, abs=0.01)
    full = len(full_calls(12, 3))
    assert series.computed == 3 * full and forecast.computed == 3 * full + 12 - full
    assert kept.computed == forecast.computed and kept.psnr != forecast.psnr
