"""Solvers inside the sampling loop: counters, custom times, and the model's scheduler."""

import pytest
import torch

from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import names
from dit_tools.core.run import RunState
from tests.support import loop, small


def run(plan, times=None, model=None):
    """Steps of a run of the small model, and its counters."""
    model = model or small.pixart()
    x, noise = loop.start(model, plan, (4, 8, 8), (3,))
    own = times or plan.times(model, x.shape)
    counters = RunState(own, plan.solver.calls(len(own) - 1))
    made = loop.sample(model, small.conditions(), x, plan, noise, times, counters)
    return list(made), counters


@pytest.mark.parametrize("name", names("solvers"))
def test_calls_are_as_many_as_promised(name):
    steps, counters = run(small.plan(steps=5, solver=name))
    assert counters.call + 1 == counters.calls_expected == counters.count["network calls"]
    assert steps[-1].t == 0 and steps[-1].index == steps[-1].total - 1
    assert torch.isfinite(steps[-1].x).all()


@pytest.mark.parametrize("name", [name for name in names("solvers") if name != "diffusers"])
def test_a_run_may_start_midway(name):
    steps, _ = run(small.plan(steps=5, solver=name), times=(0.6, 0.3, 0.0))
    assert [step.t for step in steps] == [0.3, 0.0]


def test_diffusers_own_times_cannot_be_replaced():
    with pytest.raises(UnsupportedError, match="--solver diffusers: .* midway; use --solver euler"):
        run(small.plan(steps=5, solver="diffusers"), times=(0.6, 0.3, 0.0))


def test_the_models_own_scheduler_equals_our_euler_with_native_times():
    ours, _ = run(small.plan(steps=6, schedule="native"))
    theirs, _ = run(small.plan(steps=6, schedule="native", solver="diffusers"))
    assert torch.allclose(ours[-1].x, theirs[-1].x, atol=1e-5)


def test_a_torch_method_is_refused_by_a_backend_without_torch():
    model = small.pixart()
    model.network.offers = frozenset()
    with pytest.raises(UnsupportedError, match="--solver diffusers: .* torch; use --backend torch"):
        run(small.plan(steps=2, solver="diffusers"), model=model)
