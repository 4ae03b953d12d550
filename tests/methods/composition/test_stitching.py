"""T-Stitch and the diversity hand-over: who is asked when, with two tiny models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dit_tools.core.errors import UsageError
from dit_tools.core.plan import Plan
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.methods.composition.diversity import Diversity
from dit_tools.methods.composition.t_stitch import TStitch
from tests.support import loop, small

GUIDED = "cfg:scale=3.0"


class Spy:
    """A network that writes its name and the rows of every call into a common list."""

    def __init__(self, network, name, said):
        self.network, self.name, self.said = network, name, said
        self.offers = network.offers

    def __call__(self, **inputs):
        self.said.append((self.name, len(inputs["hidden_states"])))
        return self.network(**inputs)

    def blocks(self):
        return self.network.blocks()


@pytest.fixture
def pair():
    """A large model, a small one of half the depth with other weights, and the list of calls."""
    said = []
    large = small.pixart()
    little = small.pixart(num_layers=2, seed=1)
    for model, name in ((large, "large"), (little, "small")):
        model.network = Spy(model.network, name, said)
    return large, little, said


def run(pair, combine, guidance=GUIDED, steps=10, solver="euler"):
    large, little, said = pair
    said.clear()
    plan = replace(small.plan("none", steps, guidance, solver=solver), combine=combine)
    x, noise = loop.start(large, plan, large.family.latent_shape(Size.square(8)), (3,))
    given = small.conditions()
    *_, last = loop.sample(large, given, x, plan, noise, second=loop.Second(little, given))
    return last.x, [name for name, _ in said], [rows for _, rows in said]


def alone(model, guidance=GUIDED, steps=10, solver="euler"):
    return small.final(model, small.conditions(), small.plan("none", steps, guidance, solver=solver))[0]


@pytest.mark.parametrize("solver", ["euler", "dpmpp-2m", "heun", "unipc"])
@pytest.mark.parametrize("share, which", [(0.0, 0), (1.0, 1)])
def test_share_0_is_the_large_model_and_share_1_the_small_one(pair, solver, share, which):
    made, names, _ = run(pair, TStitch(share=share), solver=solver)
    assert set(names) == {("large", "small")[which]}
    assert torch.equal(made, alone(pair[which], solver=solver))


@pytest.mark.parametrize("share, count", [(0.4, 4), (0.39, 3), (0.05, 0), (0.7, 7)])
def test_the_small_model_takes_the_floor_of_its_share_of_steps(pair, share, count):
    _, names, _ = run(pair, TStitch(share=share))
    assert names == ["small"] * count + ["large"] * (10 - count)


def test_both_evaluations_of_a_step_go_to_one_model(pair):
    _, names, _ = run(pair, TStitch(share=0.3), solver="heun")
    assert names == ["small"] * 6 + ["large"] * 13  # Heun's last step has one


def test_until_counts_times_in_place_of_steps():
    times = (1.0, 0.9, 0.7, 0.4, 0.1, 0.0)
    assert [TStitch(until=t).small(times) for t in (1.0, 0.95, 0.4, 0.0)] == [0, 1, 3, 5]


def test_the_halves_are_those_of_the_two_models(pair):
    """Euler has no memory, so the run is the small model's to the switch, the large one's on."""
    large, little, _ = pair
    made, *_ = run(pair, TStitch(share=0.5))
    plan = small.plan("none", 10, GUIDED)
    x, noise = loop.start(large, plan, large.family.latent_shape(Size.square(8)), (3,))
    times = plan.times(large, x.shape)
    for model, part in ((little, times[:6]), (large, times[5:])):
        *_, last = loop.sample(model, small.conditions(), x, plan, noise, part)
        x = last.x
    assert torch.allclose(made, x, atol=1e-6)


def test_each_model_has_its_own_scale(pair):
    """Without guidance the large model makes calls of one row, the small one of two."""
    _, names, rows = run(pair, TStitch(share=0.3, scale=2.0), guidance="none")
    assert list(zip(names, rows, strict=True)) == [("small", 2)] * 3 + [("large", 1)] * 7


def test_base_steps_0_is_the_student_and_all_steps_the_base(pair):
    student, base, _ = pair
    assert torch.equal(run(pair, Diversity(base_steps=0))[0], alone(student))
    made, names, _ = run(pair, Diversity(base_steps=10, scale=None))
    assert torch.equal(made, alone(base)) and set(names) == {"small"}


def test_the_base_model_takes_the_first_step_with_its_own_guidance(pair):
    _, names, rows = run(pair, Diversity(scale=5.0), guidance="none", steps=4)
    assert list(zip(names, rows, strict=True)) == [("small", 2)] + [("large", 1)] * 3


def test_substeps_walk_the_long_step_in_short_ones(pair):
    made, names, _ = run(pair, Diversity(base_steps=1, substeps=3), steps=4)
    assert names == ["small"] * 3 + ["large"] * 3
    large, little, _ = pair
    x, noise = loop.start(large, small.plan(), large.family.latent_shape(Size.square(8)), (3,))
    times = (1.0, 0.75 + 0.5 / 3, 0.75 + 0.25 / 3, 0.75)
    plan = small.plan("none", 3, "cfg:scale=5.0")
    *_, last = loop.sample(little, small.conditions(), x, plan, noise, times)
    rest = small.plan("none", 4, GUIDED)
    *_, last = loop.sample(large, small.conditions(), last.x, rest, noise, (0.75, 0.5, 0.25, 0.0))
    assert torch.allclose(made, last.x, atol=1e-5)


def test_substeps_need_a_solver_that_can_start_midway():
    specs = {
        "schedule": "uniform",
        "guidance": "none",
        "noise": "philox",
        "cache": "none",
        "solver": "diffusers:class=FlowMatchEulerDiscreteScheduler",
        "combine": "diversity:substeps=2",
    }
    with pytest.raises(UsageError, match="cannot start midway; leave substeps out"):
        Plan.parse(4, specs)


def test_the_counters_of_both_models_are_one(pair):
    large, little, _ = pair
    plan = replace(small.plan("taylorseer:interval=2", 12, GUIDED), combine=TStitch(share=0.5))
    x, noise = loop.start(large, plan, large.family.latent_shape(Size.square(8)), (3,))
    times = plan.times(large, x.shape)
    state, given = RunState(times, 12), small.conditions()
    list(loop.sample(large, given, x, plan, noise, run=state, second=loop.Second(little, given)))
    assert state.count["network calls"] == 12
    assert state.count["blocks computed"] + state.count["blocks skipped"] == 6 * 2 + 6 * 4
