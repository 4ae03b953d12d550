"""The arithmetic of benchmarks/caching.py, and that it runs on a tiny pipeline."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from benchmarks.caching import CACHES, Row, Sampled, as_json, measure, psnr, row, table
from dit_tools.core import spec
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from tests.support import pixart


def sampled(value: float, seconds: float, computed: int = 0, skipped: int = 0) -> Sampled:
    return Sampled(np.full((2, 3, 4, 4), value), seconds, computed, skipped)


def test_psnr_is_minus_ten_log_of_the_mean_square_of_each_picture():
    reference = np.zeros((2, 3, 4, 4))
    pixels = reference.copy()
    pixels[0] = 0.1
    assert psnr(pixels, reference) == [pytest.approx(20.0), math.inf]


def test_row_takes_the_median_of_ratios_within_rounds():
    plain = [sampled(0.5, 2.0), sampled(0.5, 9.0), sampled(0.5, 4.0)]
    cached = [sampled(0.51, 1.0, 25, 75), sampled(0.51, 3.0), sampled(0.51, 2.5)]
    made = row("some", plain, cached)
    assert made.speedup == pytest.approx(2.0)  # of 2, 3 and 1.6
    assert (made.computed, made.skipped, made.evaluations) == (25, 75, 4.0)
    assert made.psnr == made.psnr_worst == pytest.approx(40.0)


def test_table_is_aligned_and_json_has_no_infinity():
    rows = [Row("a", 10, 30, 4.0, 3.5, 31.25, 30.0), Row("much-longer", 1, 0, 1, 1, math.inf, 9)]
    lines = table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["a", "10", "30", "4.00x", "3.50x", "31.2", "30.0"]
    parsed = [json.loads(line) for line in as_json(rows).splitlines()]
    assert parsed[0]["speedup"] == 3.5
    assert parsed[1]["psnr"] is None


def test_default_specs_are_valid():
    for text in CACHES:
        assert spec.parse("caching", text).info.name == text.partition(":")[0]


def test_it_measures_a_tiny_pipeline():
    model = model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")
    caches = ("taylorseer:interval=1", "taylorseer:interval=3,warmup=1")
    same, other = measure(model, ("a", "b"), caches, 6, 1, "cfg:scale=3.0")
    assert (same.psnr, same.skipped, same.evaluations) == (math.inf, 0, 1.0)
    assert math.isfinite(other.psnr)
    assert other.evaluations == pytest.approx(2.0)  # full at 0, 3 and 5
    assert other.speedup > 0
