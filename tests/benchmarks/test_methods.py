"""benchmarks/methods.py: equal cost, fair order, scores with their limits; and every category runs."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest

from benchmarks import methods, methods_scores
from benchmarks.acceleration import parse_run, plan
from benchmarks.methods import RUNS, Counted, interleaved, nearest, prepared, steps_for
from benchmarks.methods_scores import coloured, gain, pairs, saturation, scaled, table, variety
from dit_tools.core import spec
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from tests.support import numpy_model, pixart


def asked(room: str, **given) -> Namespace:
    return Namespace(**{"steps": 3, "calls": [2, 4], "times": 2, "run": RUNS[room]} | given)


def flat(*colours: tuple[float, float, float]) -> np.ndarray:
    """An image of one colour each, (B, 3, 32, 32)."""
    return np.broadcast_to(np.array(colours, np.float32)[:, :, None, None], (len(colours), 3, 32, 32))


class FakeJudge:
    """Features are the mean colour; a text's are what ``known`` says."""

    def __init__(self, known):
        self.known = known

    def pictures(self, pixels):
        means = pixels[:, :3].mean((2, 3))
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def texts(self, texts):
        return np.array([self.known[text] for text in texts], np.float32)


@pytest.fixture
def judge(monkeypatch):
    from dit_tools.models import clip

    known = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "dark": (0.1, 0.1, 0.1)}
    monkeypatch.setattr(clip, "clip64", lambda: FakeJudge(known))


def test_every_run_is_a_plan_and_lists_of_numbers_stay_together():
    model = numpy_model.model()
    for run in {run for runs in RUNS.values() for run in runs}:
        plan(model, 9, parse_run(run))
    text = "guidance=soft-pag:heads=3.1+4.0,weight=2+steps=9"
    assert parse_run(text) == {"guidance": "soft-pag:heads=3.1+4.0,weight=2", "steps": "9"}


def test_equal_calls_are_fewer_steps_for_solvers_that_call_twice():
    euler, heun = (spec.parse("solvers", name) for name in ("euler", "heun"))
    assert steps_for(euler, 8) == 8 and steps_for(euler, 1) == 1
    assert heun.calls(steps_for(heun, 8)) <= 8 < heun.calls(steps_for(heun, 8) + 1)


def test_no_run_goes_on_before_all_have_drawn_their_part():
    model, order = prepared(numpy_model.model(), None), []

    def way(name, rows):
        def draw(part):
            order.append((name, part.start, part.stop))
            x = np.zeros((rows * (part.stop - part.start), 3, 16, 16), np.float32)
            model.network(x=x, t=np.ones(len(x), np.float32), colour=x[:, :, 0, 0])
            return np.ones((part.stop - part.start, 3, 4, 4))

        return draw

    made = interleaved(model, {"a": way("a", 1), "b": way("b", 3)}, 11)
    assert order == [("a", 0, 8), ("b", 0, 8), ("a", 8, 11), ("b", 8, 11)]
    assert made["b"].pixels.shape[0] == 11
    assert made["a"].cost(made["b"])["evaluations"] == 1
    made["a"].seconds, made["b"].seconds = [2.0, 9.0], [1.0, 3.0]
    assert made["a"].cost(made["b"])["slower"] == 2.5 and made["b"].cost(made["a"])["evaluations"] == 3


def test_the_counting_network_is_the_network():
    network = Counted(numpy_model.NumpyNetwork())
    assert network.blocks() == [] and network.offers == frozenset() and network.rows == 0


def test_the_rival_is_the_plain_run_of_the_nearest_cost():
    costs = {"plain": 1.0, "steps=10": 0.5, "steps=40": 2.0}
    assert [nearest(costs, cost) for cost in (0.6, 1.1, 1.5, 9.0)] == ["steps=10", "plain", "steps=40", "steps=40"]


def test_a_gain_counts_when_it_is_beyond_twice_its_error():
    assert gain((0.5, 0.7, 0.6), (0.4, 0.6, 0.5))["verdict"] == "better"
    assert gain((0.4, 0.6, 0.5), (0.5, 0.7, 0.6))["verdict"] == "worse"
    assert gain((0.5, 0.5, 0.5), (0.9, 0.1, 0.4)) == {"gain": "+0.033 +- 0.467", "verdict": "same"}
    assert gain((0.9,), (0.1,))["verdict"] == "same"


def test_saturation_looks_at_what_is_drawn():
    image = flat((1, 1, 1), (1, 0, 0)).copy()
    assert saturation(image) == 0.5
    image[1, :, :16] = 1.0  # white around it changes nothing
    assert saturation(image) == 0.5


def test_coloured_takes_prompts_with_a_colour_and_enough_of_them():
    pixels = np.concatenate([flat((0.9, 0.1, 0.1))] * 12)
    assert coloured(pixels[:9], ["red thing"] * 9) == {}
    prompts = ["red thing"] * 6 + ["blue thing"] * 4 + ["a thing"] * 2
    assert coloured(pixels, prompts) == {"coloured": 60.0}


def test_both_prompts_must_be_the_two_nearest_of_all(judge):
    pixels = flat((0.6, 0.5, 0.1), (0.1, 0.6, 0.5))  # of the second, blue and dark are asked for
    made = pairs(pixels, ["red", "blue"], ["green", "dark"])
    assert made == {"both": 50.0, "either": 50.0, "first": 100.0}
    neither = pairs(flat((0.1, 0.1, 0.9)), ["red"], ["green"])
    assert neither["both"] == 100.0  # of two texts both are always the nearest two


def test_variety_is_none_for_equal_pictures(judge):
    same, other = flat((1, 0, 0), (1, 0, 0)), flat((1, 0, 0), (0, 1, 0))
    assert variety([same]) == pytest.approx(0) and variety([same, other]) == pytest.approx(0.5)


def test_shrinking_undoes_enlarging_of_what_is_smooth():
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 16, dtype=np.float32), (1, 3, 16, 16))
    assert np.abs(scaled(scaled(ramp, 32), 16) - ramp).max() < 0.01


def test_table_and_formats():
    rows = [
        {"run": "plain", "slower": 1.0, "found": 90.0, "gain": ""},
        {"run": "x", "slower": 2.0, "found": 9.0, "gain": "+1"},
    ]
    assert table(rows).splitlines() == [
        "run    slower   found  gain",
        "plain   1.00x  90.0 %",
        "x       2.00x   9.0 %  +1",
    ]
    assert methods_scores.shown("calls", None) == ""


def test_solvers_run_to_the_same_end_on_an_exact_flow():
    rows = methods.solvers(prepared(numpy_model.model(), None), asked("solvers"), ["a", "b"])
    assert [row["run"] for row in rows] == list(RUNS["solvers"])
    assert all(row.keys() == {"run", "2 calls", "4 calls"} for row in rows)


def test_guidance_is_set_against_plain_runs():
    runs = ("steps=2", "guidance=none", "guidance=apg")
    model = prepared(numpy_model.model(), 3.0)
    rows = {row["run"]: row for row in methods.guidance(model, asked("guidance", run=runs), "abc")}
    assert rows["plain"]["evaluations"] == 6 and rows["guidance=none"]["evaluations"] == 3
    assert not rows["steps=2"]["verdict"]
    assert rows["guidance=apg"]["against"] in ("plain", "steps=2")


def tiny():
    made = model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")
    return prepared(made, None)


def test_two_prompts_and_two_models_run_on_a_tiny_pipeline():
    model = tiny()
    rows = methods.combine(model, asked("combine"), ["cat", "dog", "sun", "moon"])
    assert [row["evaluations"] for row in rows] == [6, 9, 9, 9]
    model.second = tiny()
    rows = methods.diversity(model, asked("diversity"), ["cat", "dog"])
    assert [row["evaluations"] for row in rows] == [6, 6, 12, 6]


def test_larger_pictures_are_compared_with_the_plain_ones():
    runs = ("highres=none", "highres=diffusehigh:share=0.5")
    rows = methods.highres(tiny(), asked("highres", run=runs), ["cat", "dog"])
    assert [row["run"] for row in rows] == ["enlarged", *runs]
    assert rows[0]["kept"] > max(row["kept"] for row in rows[1:])
