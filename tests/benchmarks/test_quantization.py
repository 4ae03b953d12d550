"""The arithmetic of benchmarks/quantization.py, and that it runs on a tiny model."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.quantization import GOALS, SCHEMES, Bench, Cells, Goal, Row, line, verdicts
from dit_tools.core import spec
from tests.support import pixart


def row(scheme: str, loss: float) -> Row:
    return Row(scheme, SCHEMES.get(scheme, ""), 0.25, 30.0, 25.0, 0.9, loss, snr=20 - loss)


def test_a_scheme_is_held_against_its_rival() -> None:
    rows = [row("rtn:bits=4", 0.5), row("svd", 0.2), row("vidit-q", 0.1)]
    found = verdicts(rows)
    assert found == {"svd": True}  # the rivals of the others were not measured
    assert verdicts([row("rtn:bits=4", 0.1), row("svd", 0.2)]) == {"svd": False}
    assert "+0.200  19.80  better than rtn:bits=4 and" in line(rows[1], {"svd": True})
    best = row("rtn:bits=4,clip=mse", 0.1)
    assert verdicts([*rows, best])["svd"] is False  # it must beat each of them
    assert line(rows[1], {"svd": False}, ["fp8"]).endswith("WORSE than fp8")
    assert "WORSE" in line(rows[1], {"svd": False}) and line(rows[0], found).endswith("+0.500  19.50")


def test_every_scheme_is_one_and_is_measured_after_its_rival() -> None:
    measured = list(SCHEMES)
    for text, rival in SCHEMES.items():
        assert spec.format(spec.parse("quantization", text)).partition(":")[0] in text
        assert all(measured.index(one) < measured.index(text) for one in rival.split())


def test_rows_are_kept_and_measured_once(tmp_path: Path) -> None:
    count = 0

    def measure() -> Row:
        nonlocal count
        count += 1
        return replace(row("svd", 0.2), psnr=math.inf)

    kept = Cells(tmp_path / "cells", "emoji")
    assert kept.row("svd", measure) == kept.row("svd", measure) and count == 1
    Cells(tmp_path / "cells", "another model").row("svd", measure)
    kept.row("svd:rank=8", measure)
    assert count == 3
    Cells(None, "emoji").row("svd", measure)
    assert count == 4


def test_goals_are_bounds_of_measured_rows() -> None:
    assert {goal.field for goal in GOALS} == {"ratio", "psnr", "faster"}
    least, most = Goal("svd", "psnr", 30, True), Goal("svd", "ratio", 0.24, False)
    assert least.met(row("svd", 0.1)) and not most.met(row("svd", 0.1))
    assert least.text(row("svd", 0.1)) == "svd: psnr 30.000, at least 30 wanted: met"
    assert most.text(row("svd", 0.1)).endswith("at most 0.24 wanted: MISSED")


def test_a_graph_is_made_drawn_and_timed(tmp_path: Path) -> None:
    pixart.pipeline(tmp_path / "model")
    bench = Bench(str(tmp_path / "model"), ["a red apple"], calibration=1, steps=2)
    found = bench.graph("onnx", "", rounds=1)
    assert found.psnr > 10 and found.faster > 0 and found.ratio > 0


def test_it_runs_and_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    pixart.pipeline(tmp_path / "model")
    bench = Bench(str(tmp_path / "model"), ["a red apple"], calibration=1, steps=2)
    before = {k: t.clone() for k, t in bench.model.network.module.state_dict().items()}
    eight, four = bench.measure("rtn"), bench.measure("quest:epochs=1,calls=2,group=8")
    assert eight.ratio > four.ratio and eight.psnr > four.psnr > 10
    after = bench.model.network.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert bench.measure("rtn") == eight
    quick = bench.measure("rtn", quick=True)
    assert (quick.snr, quick.loss) == (eight.snr, eight.loss) and math.isnan(quick.psnr)
    assert eight.snr > four.snr
