"""``--combine`` in a run: both models are loaded and asked, and the record says with what."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dit_tools.core.errors import ExitCode, ModelError, UsageError
from dit_tools.media import metadata
from dit_tools.tasks.generate.request import Request, plan_generation
from dit_tools.tasks.generate.run import Options
from tests.jobs.test_record import validator
from tests.support.numpy_model import Counting
from tests.tasks.generate.test_run import go, pixels


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def both(prompt="a", **rest):
    return go(prompt, steps=10, combine="t-stitch", second_model="small", cfg_scale=1, **rest)


def test_both_models_are_loaded_and_share_the_steps():
    outcome, events, stand_in = both(output="a.png")
    assert outcome.exit_code == 0
    assert [reference for reference, _ in stand_in.loaded] == ["emoji", "small"]
    assert [len(model.network.calls) for model in stand_in.models] == [6, 4]
    record = metadata.read_record("a.png")
    validator("record").validate(record)
    assert record == events[1]["record"]
    assert record["combine"] == "t-stitch"
    assert (record["second_model"], record["second_model_revision"]) == ("small", "r1")


def test_share_0_is_the_picture_of_the_first_model():
    go("a", steps=10, cfg_scale=1, output="plain.png")
    go("a", steps=10, cfg_scale=1, combine="t-stitch:share=0", second_model="s", output="same.png")
    assert np.array_equal(pixels("plain.png"), pixels("same.png"))


def test_a_picture_is_asked_for_again_by_its_record():
    _, _, first = both(output="one.png")
    _, _, again = go(from_image="one.png", output="two.png", stand_in=Counting())
    assert [reference for reference, _ in again.loaded] == ["emoji", "small"]
    assert np.array_equal(pixels("one.png"), pixels("two.png"))


def test_two_prompts_make_one_picture_of_their_own():
    for name, prompt in (("one", "cat"), ("other", "dog")):
        go(prompt, steps=30, solver="ddim:eta=1", output=f"{name}.png")
    outcome, _, stand_in = go("cat", steps=30, combine="superdiff", second_prompt="dog", output="both.png")
    assert outcome.exit_code == 0 and len(stand_in.models) == 1
    assert {call[0] for call in stand_in.models[0].network.calls} == {3}  # cat, dog, negative
    record = metadata.read_record("both.png")
    validator("record").validate(record)
    assert record["second_prompt"] == "dog" and record["solver"] == "ddim:eta=1.0"
    made = {name: pixels(f"{name}.png").mean((0, 1)) for name in ("one", "other", "both")}
    apart = np.abs(made["one"] - made["other"]).max()
    assert 0.1 * apart < np.abs(made["both"] - made["one"]).max() < apart
    go(from_image="both.png", output="again.png")
    assert np.array_equal(pixels("both.png"), pixels("again.png"))


def test_compare_runs_without_the_second_model():
    outcome, _, stand_in = both(output="a.png", options=Options(compare=True))
    assert outcome.exit_code == 0
    assert "speedup" in metadata.read_record("a.png")["compare"]
    # 6 combined, 2 to warm up, 6 combined again, 10 plain
    assert [len(model.network.calls) for model in stand_in.models] == [24, 8]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"second_model": "s"}, "--second-model: nothing is combined; give --combine"),
        ({"second_prompt": "s"}, "--second-prompt: nothing is combined; give --combine"),
        ({"combine": "t-stitch"}, "--combine t-stitch: with what?; give --second-model"),
        ({"combine": "superdiff"}, "with what?; give --second-model or --second-prompt"),
        (
            {"combine": "t-stitch", "second_model": "s", "second_prompt": "b"},
            "--second-prompt: --combine t-stitch has no use",
        ),
        (
            {"combine": "superdiff", "second_prompt": "b", "solver": "heun"},
            "--combine superdiff: --solver heun has no place in it; leave it out",
        ),
    ],
)
def test_what_is_missing_or_has_no_use_is_refused_before_a_model_is_loaded(options, message):
    stand_in = Counting()
    with pytest.raises(UsageError, match=re.escape(message)):
        go("a", stand_in=stand_in, **options)
    assert not stand_in.loaded


def test_a_second_model_that_is_not_there_is_told_before_the_first_is_loaded():
    stand_in = Counting()

    def find(settings):
        if settings.model == "gone":
            raise ModelError("no model 'gone'")
        return stand_in.find(settings)

    request = Request(("a",), {"combine": "t-stitch", "second_model": "gone"})
    with pytest.raises(ModelError, match="gone"):
        plan_generation(request, print, find, stand_in.load)


def test_models_that_do_not_fit_are_refused_with_the_reason():
    class Odd(Counting):
        def load(self, reference, wishes):
            self.options = {"alpha": reference == "small"}
            return super().load(reference, wishes)

    outcome, _, _ = both(stand_in=Odd())
    assert outcome.exit_code == ExitCode.UNSUPPORTED
    message = str(outcome.failed[0][1])
    assert message.startswith("--second-model small: its latents are 4 x 16 x 16, not 3 x 16 x 16;")
