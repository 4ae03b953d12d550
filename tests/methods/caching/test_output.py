"""Forecasts of the whole output: on numpy without blocks, per branch, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.forecast import Forecast
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.models.family import ConditionRequest
from tests.support import loop, numpy_model, small


@pytest.fixture(scope="module")
def model():
    return small.pixart()


def numpy_run(cache: str, steps: int, solver: str = "euler", guidance: str = "cfg:scale=2"):
    model = numpy_model.model()
    conditions = model.encode(ConditionRequest(("red",), ("blue",), Size.square(16)))
    plan = small.plan(cache, steps, guidance, solver=solver)
    x, noise = loop.start(model, plan, (3, 16, 16), (5,))
    times = plan.times(model, x.shape)
    run = RunState(times, plan.solver.calls(len(times) - 1))
    *_, last = loop.sample(model, conditions, x, plan, noise, run=run)
    return last.x, run, model.network.calls


def test_it_skips_network_calls_without_torch_or_blocks():
    _, run, calls = numpy_run("output:interval=3,warmup=2", 10)
    assert len(calls) == 5  # 0, 1, 4, 7 and the last
    assert (run.count["blocks computed"], run.count["blocks skipped"]) == (5, 5)


def test_interval_one_is_the_plain_run_bit_for_bit():
    assert (numpy_run("output:interval=1", 8)[0] == numpy_run("none", 8)[0]).all()


@pytest.mark.parametrize("order", [0, 1, 2])
def test_outputs_are_the_forecast_of_computed_ones(model, order):
    cache, made = spec.parse("caching", f"output:order={order},interval=3,warmup=1"), []

    class Network:
        def __call__(self, value):
            return value

        def blocks(self):
            return []

    run = RunState((1.0, 0.5, 0.0), 99)
    network = cache.around(Network(), run)
    values = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(0))
    for run.call, value in enumerate(values):
        run.branches = ("cond",)
        made.append(network(value=value))
    forecast = Forecast(order)
    for call, value in enumerate(values):
        if call % 3 == 0:
            forecast.learn(call, value)
            assert torch.equal(made[call], value)
        else:
            assert torch.equal(made[call], forecast.at(call))


def test_branches_of_their_own_calls_keep_their_own_memory(model):
    alone, _ = small.final(model, small.conditions(), small.plan("output", 8))
    watched, _ = small.final(model, small.conditions(), small.plan("output", 8, small.Both(together=False, watch=True)))
    assert torch.equal(alone, watched)


def test_order_one_is_nearer_than_reuse_and_time_equals_step_on_equal_times():
    plain = numpy_run("none", 40)[0]
    errors = [np.abs(numpy_run(f"output:interval=2,order={order}", 40)[0] - plain).mean() for order in (0, 1)]
    assert 0 < errors[1] < errors[0]
    step, time = (numpy_run(f"output:variable={name}", 16)[0] for name in ("step", "time"))
    assert np.abs(step - time).max() < 1e-4


def test_a_solver_of_two_calls_a_step_is_finite_in_either_variable():
    for variable in ("step", "time"):
        x, *_ = numpy_run(f"output:order=2,interval=3,variable={variable}", 10, solver="heun")
        assert np.isfinite(x).all()


def test_runs_share_no_memory(model):
    chosen = small.plan("output:interval=3", 8)
    first, _ = small.final(model, small.conditions(), chosen)
    generator, _ = small.steps(model, small.conditions(), chosen, (9,))
    for _ in range(4):
        next(generator)
    assert torch.equal(small.final(model, small.conditions(), chosen)[0], first)
