"""The arithmetic of benchmarks/acceleration.py, and that it runs on a tiny pipeline."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from benchmarks import acceleration
from benchmarks.acceleration import (
    RUNS,
    Sampled,
    fewer_steps,
    found,
    measure,
    offered,
    parse_run,
    plan,
    prompts_of,
    row,
)
from benchmarks.acceleration_report import Row, as_json, at, judged, plot, table
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from tests.support import numpy_model, pixart

FEWER = [Row("steps=20", 20, 0, 0, 2.0, 30.0, 0.9), Row("steps=10", 10, 0, 0, 4.0, 20.0, 0.8)]


def test_a_run_is_specs_joined_by_plus():
    assert parse_run("cache=taylorseer:interval=3,order=2+steps=9") == {
        "cache": "taylorseer:interval=3,order=2",
        "steps": "9",
    }
    for bad in ("taylorseer", "cash=none", "cache=none+x"):
        with pytest.raises(ValueError, match="give .* joined by"):
            parse_run(bad)


def test_the_models_scale_goes_where_none_is_given():
    model = numpy_model.model()
    assert plan(model, 9, {}).guidance.scale == 2.0
    assert plan(model, 9, {"guidance": "adaptive:gamma=0.5"}).guidance.scale == 2.0
    assert plan(model, 9, {"guidance": "cfg:scale=7"}).guidance.scale == 7.0
    assert plan(model, 9, {"steps": "4"}).steps == 4


def test_default_runs_are_valid_and_onnx_takes_those_without_blocks():
    runs, left = offered(numpy_model.model(), RUNS, 9)
    assert len(runs) + len(left) == len(RUNS)
    assert "cache=output:interval=2" in runs and "guidance=linear-ag" in runs
    assert "cache=fast" in left and "combine=t-stitch:share=0.4" in left


def test_fewer_steps_interpolates_in_the_logarithm_of_the_speedup():
    assert at(FEWER, math.sqrt(8)) == pytest.approx(25.0)
    assert at(FEWER, 8.0) == pytest.approx(10.0)
    assert at(FEWER, 1.0) == pytest.approx(40.0)
    assert at(FEWER[:1], 2.0) is None
    assert fewer_steps(50) == [38, 25, 19, 12, 8] and fewer_steps(2) == [1]


def test_a_method_is_worth_it_above_the_line():
    good, bad = (Row(name, 9, 0, 0, 4.0, value, 0.9) for name, value in (("a", 21.0), ("b", 19.0)))
    rows = judged([*FEWER, good, bad], FEWER)
    assert [r.worth for r in rows] == [None, None, True, False]
    lines = table(rows).splitlines()
    assert lines[3].endswith("  worth it, front") and lines[4].endswith("  not worth it")
    assert [json.loads(line)["worth"] for line in as_json(rows).splitlines()] == [None, None, True, False]


def test_row_takes_the_median_of_ratios_and_compares_pictures():
    plain, other = (Sampled(np.full((2, 3, 16, 16), value), 2.0, 9, 3, 6) for value in (0.5, 0.51))
    made = row("x", plain, other, (2.0, 3.0, 1.6))
    assert made.speedup == pytest.approx(2.0)
    assert made.psnr == pytest.approx(40.0) and 0.9 < made.ssim < 1
    assert (made.calls, made.computed, made.skipped) == (9, 3, 6)


def test_every_run_is_timed_behind_a_plain_run_of_its_own(monkeypatch):
    order = []

    def sampled(model, chosen, conditions, seeds, second):
        order.append((str(chosen.solver), len(seeds)))
        slow = 2.0 ** len(order)  # a machine that gets slower all the time
        return Sampled(np.full((len(seeds), 3, 16, 16), 0.5), slow, 6)

    model = model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")
    monkeypatch.setattr(acceleration, "sample_once", sampled)
    monkeypatch.setattr(acceleration, "FEWER", ())
    [made] = measure(model, ("a", "b", "c"), ("solver=unipc",), 6, 2, timed=2)
    assert [count for _, count in order] == [3, 3] + [2] * 8
    plain, other = order[0][0], order[1][0]
    assert plain != other
    assert [name for name, _ in order[2:]] == [plain, plain, plain, other] * 2
    assert made.speedup == 0.5


def test_json_has_no_infinity_and_the_plot_is_svg():
    rows = judged([*FEWER, Row("same", 9, 0, 0, 1.0, math.inf, math.nan)], FEWER)
    last = json.loads(as_json(rows).splitlines()[-1])
    assert last["psnr"] is None and last["ssim"] is None
    drawn = ET.fromstring(plot(rows))
    assert len(drawn.findall("{http://www.w3.org/2000/svg}circle")) == 2


def test_prompts_go_round(tmp_path):
    assert len(prompts_of(50)) == 50 and prompts_of(41)[40] == prompts_of(1)[0]
    (tmp_path / "some.txt").write_text("# a comment\ncat\n\ndog\n", encoding="utf-8")
    assert prompts_of(3, tmp_path / "some.txt") == ["cat", "dog", "cat"]


def test_the_judge_finds_a_heart_and_not_noise():
    heart = np.ones((3, 128, 128), np.float32)
    y, x = np.mgrid[1.3:-1.3:128j, -1.3:1.3:128j]
    heart[1:, (x * x + y * y - 1) ** 3 < x * x * y**3] = 0.1
    noise = np.random.default_rng(0).random((3, 128, 128), dtype=np.float32)
    among = ["red heart", "pine tree", "aeroplane", "cup of coffee"]
    assert found(np.stack([heart, noise, noise, noise]), among)[0]
    assert found(np.stack([heart, heart]), ["pine tree", "red heart"]).tolist() == [False, True]
    assert "found" not in table(FEWER)
    seen = [Row("plain", 20, 0, 0, 1.0, math.inf, 1.0, found=75.0), *FEWER]
    assert "75.0 %" in table(seen) and table(seen).splitlines()[0].rstrip().endswith("found")


def test_what_is_found_is_compared_picture_by_picture():
    plain, other = np.array([True, True, True, False]), np.array([True, False, True, False])
    made = Row("x", 9, 0, 0, 2.0, 30.0, 0.9).judged(other, plain)
    assert (made.found, made.more) == (50.0, -25.0)
    assert made.error == pytest.approx(25.0)  # of 0, -100, 0, 0
    assert "50.0 % (-25.0 +- 25.0)" in table([made])
    same = Row("plain", 9, 0, 0, 1.0, math.inf, 1.0).judged(plain, plain)
    assert (same.more, same.error) == (0.0, 0.0) and "+-" not in table([same])


def test_it_measures_a_tiny_pipeline():
    model = model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")
    runs = ("cache=taylorseer:interval=1", "cache=output:interval=3,warmup=1", "solver=unipc")
    model.second = model_from_pipeline(
        pixart.pipeline(num_layers=1), name="small", revision="0", device="cpu", dtype="float32"
    )
    runs += ("combine=t-stitch:share=0", "combine=t-stitch:share=0.5")
    assert offered(model, runs, 6) == (list(runs), [])
    *fewer, same, other, solver, large, stitched = measure(model, ("a", "b"), runs, 6, 1)
    assert large.psnr == math.inf and math.isfinite(stitched.psnr) and stitched.calls == 6
    assert [r.run for r in fewer] == ["steps=4", "steps=3", "steps=2", "steps=1"]
    assert same.psnr == math.inf and same.worth
    assert (other.computed, other.skipped) == (3, 3) and math.isfinite(other.psnr)
    assert solver.calls == 6 and solver.speedup > 0
    plain, *others = measure(model, ("a", "b"), runs[:1], 2, 1, retrieval=True)
    assert plain.run == "plain" and plain.psnr == math.inf
    assert others[-1].found == plain.found in (0.0, 50.0, 100.0)
