"""Stream batch: the same latents as one frame after the other, with fewer calls."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.core.steps import transfer
from dit_tools.sampling.denoiser import drive
from dit_tools.tasks.stream.batch import StreamBatch, join_inputs
from tests.contract.conftest import BUILDERS, subject_of
from tests.support import small
from tests.support.branches import guided

TIMES = (0.75, 0.5, 0.25, 0.0)


def frames(model, count=5):
    shape = model.family.latent_shape(Size.square(model.defaults.size))
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(1, *shape, generator=draw) for _ in range(count)]


def streamed(model, given, guidance, pictures, times=TIMES):
    noise = torch.randn(pictures[0].shape, generator=torch.Generator().manual_seed(2))
    batch = StreamBatch(model, given, spec.parse("guidance", guidance), times, noise)
    made = [batch.push(x) for x in pictures]
    return [x for x in made if x is not None] + list(batch.flush()), batch, noise


def one_by_one(model, given, guidance, pictures, noise, times=TIMES):
    """Every frame alone through all levels."""
    made = []
    for x0 in pictures:
        guide = spec.parse("guidance", guidance).begin(RunState(times, len(times) - 1))
        x = model.path.alpha(times[0]) * x0 + model.path.sigma(times[0]) * noise
        for t, s in zip(times, times[1:], strict=False):

            def evaluate(*branches, x=x, t=t):
                return [
                    model.family.read(model.network(**model.family.inputs(x, t, given[branch.name])), x, t)
                    for branch in branches
                ]

            x = transfer(guided(guide, evaluate, x, t), s)
        made.append(x)
    return made


@pytest.mark.parametrize("guidance", ["none", "cfg:scale=3", "residual-cfg", "adaptive:gamma=0.5"])
def test_a_frame_is_what_it_would_be_alone(guidance):
    model, given = small.pixart(), small.conditions()
    images = frames(model)
    made, _, noise = streamed(model, given, guidance, images)
    alone = one_by_one(model, given, guidance, images, noise)
    assert len(made) == len(alone) == 5
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(made, alone, strict=True))


@pytest.mark.parametrize("family", BUILDERS)
def test_every_family_takes_a_time_per_row(family):
    subject = subject_of(family)
    model, images = subject.model, frames(subject.model, 3)
    made, batch, noise = streamed(model, subject.conditions, "cfg:scale=2", images)
    alone = one_by_one(model, subject.conditions, "cfg:scale=2", images, noise)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(made, alone, strict=True))
    assert batch.calls == 5 * (1 if model.family.batch_branches else 2)


def test_calls_are_one_a_tick_and_rows_one_a_branch():
    model, given = small.pixart(), small.conditions()
    _, batch, _ = streamed(model, given, "cfg:scale=3", frames(model, 6))
    assert batch.calls == 6 + 2  # a tick a frame, two more to empty it
    assert batch.rows == 6 * 3 * 2
    _, batch, _ = streamed(model, given, "residual-cfg", frames(model, 6))
    assert batch.rows == 6 * (3 + 1)  # N + 1 evaluations a frame
    _, batch, _ = streamed(model, given, "residual-cfg:mode=self", frames(model, 6))
    assert batch.rows == 6 * 3


def test_what_stands_still_stays_the_same():
    model, given = small.pixart(), small.conditions()
    made, *_ = streamed(model, given, "cfg:scale=3", frames(model, 1) * 6)
    assert all(torch.allclose(x, made[0], atol=1e-5) for x in made)


def test_one_level_is_one_step_without_delay():
    model, given = small.pixart(), small.conditions()
    noise = torch.randn(1, 4, 8, 8)
    batch = StreamBatch(model, given, spec.parse("guidance", "none"), (0.5, 0.0), noise)
    assert batch.push(frames(model, 1)[0]) is not None
    assert list(batch.flush()) == []


def test_branches_of_unlike_shapes_go_in_calls_of_their_own():
    model, given = small.pixart(), small.conditions()
    short = {key: value[:, :3] for key, value in given["uncond"].items()}
    given = {**given, "uncond": short}
    images = frames(model, 2)
    made, batch, noise = streamed(model, given, "cfg:scale=3", images)
    alone = one_by_one(model, given, "cfg:scale=3", images, noise)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(made, alone, strict=True))
    assert batch.calls == 4 * 2


def test_guidance_that_changes_the_network_is_refused():
    model = small.pixart()
    with pytest.raises(UnsupportedError, match="--stream: --guidance soft-pag"):
        streamed(model, small.conditions(), "soft-pag", frames(model, 2))


def test_not_a_number_is_told():
    model = small.pixart()
    model = replace(model, network=lambda **inputs: inputs["hidden_states"] * float("nan"))
    with pytest.raises(ModelError, match="NaN or infinity at t = 0.750"):
        streamed(model, small.conditions(), "none", frames(model, 1))


def test_inputs_join_by_rows_and_keep_what_has_none():
    a, b = torch.zeros(1, 3), torch.ones(1, 3)
    ids = torch.zeros(7, 3)
    parts = [{"x": x, "ids": ids, "list": [x[0]], "n": 4, "no": None} for x in (a, b)]
    made = join_inputs(parts)
    assert torch.equal(made["x"], torch.cat([a, b])) and made["ids"] is ids
    assert len(made["list"]) == 2 and made["n"] == 4 and made["no"] is None


def asking(*questions):
    """A guide that asks these, one after the other, and returns what it was told."""
    told = []
    for question in questions:
        told.append((yield question))
    return told


def test_guides_that_ask_together_are_answered_together():
    seen = []

    def answer(questions):
        seen.append(questions)
        return [10 * number + asked for number, asked in questions]

    assert drive([asking(0, 1), asking(), asking(0, 1, 2)], answer) == [[0, 1], [], [20, 21, 22]]
    assert seen == [[(0, 0), (2, 0)], [(0, 1), (2, 1)], [(2, 2)]]


@pytest.mark.parametrize("where", ["guide", "answer"])
def test_an_error_of_one_ends_all(where):
    def bad():
        yield 1
        raise KeyError("guide")

    def answer(questions):
        if where == "answer":
            raise KeyError("answer")
        return [asked for _, asked in questions]

    with pytest.raises(KeyError, match=where):
        drive([asking(1, 2, 3), bad() if where == "guide" else asking(1)], answer)
