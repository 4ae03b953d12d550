"""The arithmetic of benchmarks/int8.py, and that it runs on a tiny exported model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.int8 import Pair, int8_network, measure, psnr, result
from dit_tools.models.loading.load import load
from tests.support import pixart
from tests.support.exports import exported


def pair(prompt: str, apart: float, plain: float, int8: float) -> Pair:
    pixels = np.full((4, 8, 8), 0.5)
    return Pair(prompt, (plain, int8), (pixels, pixels + apart))


def test_psnr_is_minus_ten_log_of_the_mean_square() -> None:
    assert psnr(np.zeros(4), np.full(4, 0.1)) == pytest.approx(20.0)
    assert psnr(np.zeros(4), np.array([0.2, 0, 0, 0])) == pytest.approx(20.0)
    assert psnr(np.ones(2), np.ones(2)) == math.inf


def test_result_means_psnr_over_prompts_and_takes_the_median_of_ratios() -> None:
    rounds = [pair("a", 0.1, 2, 1), pair("b", 0.01, 9, 3), pair("a", 0.1, 8, 1)]
    found = result(rounds)
    assert (found.prompts, found.worst_prompt, found.faster) == (2, "a", 3.0)
    assert (found.psnr, found.psnr_worst) == (pytest.approx(30.0), pytest.approx(20.0))


@pytest.mark.parametrize("apart, enough", [(0.03, True), (0.04, False)])
def test_thirty_decibels_are_enough(apart: float, enough: bool) -> None:
    assert result([pair("a", apart, 1, 1)]).enough is enough


def test_it_runs_with_a_graph_and_without(tmp_path: Path) -> None:
    pixart.pipeline(tmp_path / "model")
    folder = exported(tmp_path / "model", tmp_path / "out", parts=("transformer",), int8=True)
    model = load(str(folder), backend="onnx")
    pairs = measure(model, int8_network(folder), ["a", "b"], steps=2, rounds=2)
    assert [p.prompt for p in pairs] == ["a", "b"] * 2
    found = result(pairs)
    assert 20 < found.psnr_worst <= found.psnr < math.inf and found.faster > 0
    (folder / "transformer.int8.onnx").unlink()
    again = measure(model, int8_network(folder), ["a"], steps=2, rounds=1)
    assert np.array_equal(again[0].pixels[1], pairs[0].pixels[1])
    assert not (folder / "transformer.int8.onnx").exists()
