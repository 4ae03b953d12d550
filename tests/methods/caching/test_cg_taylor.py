"""Confidence-gated Taylor on a small network: the gate decides as the formula says."""

from __future__ import annotations

import math

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.forecast import Forecast
from dit_tools.core.run import RunState
from dit_tools.methods.caching._policy import Gate
from tests.support import small

EVERYTHING = "cg-taylor:threshold=1e9,max_skips=0,warmup=2"


@pytest.fixture(scope="module")
def model():
    return small.pixart()


def test_an_endless_threshold_leaves_warmup_and_last_step(model):
    _, run = small.final(model, small.conditions(), small.plan(EVERYTHING, 10))
    assert run.count["blocks computed"] == 3 * 4 + 7  # three full calls, block 1 of the others
    assert run.count["blocks skipped"] == 7 * 3


def test_max_skips_limits_the_calls_skipped_in_a_row(model):
    cache = "cg-taylor:threshold=1e9,max_skips=2,warmup=1"
    generator, run = small.steps(model, small.conditions(), small.plan(cache, 9))
    skipped, before = [], 0
    for _ in generator:
        skipped.append(run.count["blocks skipped"] > before)
        before = run.count["blocks skipped"]
    assert skipped == [False, True, True, False, True, True, False, True, False]


@pytest.mark.parametrize(("gate", "threshold"), [("output", 0.02), ("residual", 0.1)])
def test_the_gate_measures_the_forecast_of_block_one(model, gate, threshold):
    """Block 1's outputs are recorded, the decisions derived from them in a few lines."""
    warmup, steps, seen = 2, 16, []

    def record(module, args, kwargs, output):
        seen.append(output - args[0] if gate == "residual" else output)

    first = model.network.blocks()[0].module
    handle = first.register_forward_hook(record, with_kwargs=True)
    cache = f"cg-taylor:threshold={threshold},warmup={warmup},gate_order=1,max_skips=3,gate={gate}"
    generator, run = small.steps(model, small.conditions(), small.plan(cache, steps))
    skipped, before = [], 0
    for _ in generator:
        skipped.append(run.count["blocks skipped"] > before)
        before = run.count["blocks skipped"]
    handle.remove()

    expected, full = [], []
    for call, now in enumerate(seen):
        skip = False
        if warmup <= call < steps - 1 and call - full[-1] - 1 < 3:
            new, old = full[-1], full[-2]
            guess = seen[new] + (seen[new] - seen[old]) / (new - old) * (call - new)
            skip = ((guess - now).abs().mean() / now.abs().mean()).item() < threshold
        expected.append(skip)
        if not skip:
            full.append(call)
    assert skipped == expected
    assert 0 < sum(expected) < steps - warmup - 1, "the threshold must separate"


def test_a_skipped_call_forecasts_the_last_block_and_nothing_else(model):
    """With order 0 everywhere the second call must repeat the first one's last block."""
    outputs = []
    last = model.network.blocks()[-1].module
    norm = model.network.module.norm_out
    handles = [
        last.register_forward_hook(lambda m, a, o: outputs.append(("block", o))),
        norm.register_forward_pre_hook(lambda m, a: outputs.append(("norm", a[0]))),
    ]
    cache = "cg-taylor:threshold=1e9,order=0,gate_order=0,warmup=1"
    small.final(model, small.conditions(), small.plan(cache, 3))
    for handle in handles:
        handle.remove()
    (_, made), *_ = [entry for entry in outputs if entry[0] == "block"]
    norms = [value for name, value in outputs if name == "norm"]
    assert torch.equal(norms[0], made)
    assert torch.equal(norms[1], made)
    assert not torch.equal(norms[2], made)


def test_a_gate_that_meets_nan_does_not_skip():
    gate = Gate(math.inf, 0, Forecast(0), residual=False)
    gate.learn(0, torch.zeros(2), torch.zeros(2))
    assert not gate.after(1, torch.zeros(2), torch.full((2,), math.nan), 0)
    assert not gate.after(1, torch.zeros(2), torch.zeros(2), 0)
    assert gate.after(1, torch.zeros(2), torch.ones(2), 0)


def test_a_threshold_of_zero_does_not_skip_even_without_any_error():
    gate = Gate(0.0, 0, Forecast(0), residual=False)
    gate.learn(0, torch.zeros(2), torch.ones(2))
    assert not gate.after(1, torch.zeros(2), torch.ones(2), 0)


@torch.no_grad()
def test_a_network_of_one_block_is_never_skipped(model):
    block, run = model.network.blocks()[0], RunState((1.0, 0.5, 0.0), 99)
    inputs = [
        {
            "hidden_states": torch.randn(1, 4, 16),
            "timestep": torch.randn(1, 6 * 16),
            "encoder_hidden_states": torch.randn(1, 3, 16),
        }
        for _ in range(5)
    ]
    plain = [block.module(**each) for each in inputs]
    with spec.parse("caching", EVERYTHING).attach([block], run):
        for run.call, each in enumerate(inputs):
            assert torch.equal(block.module(**each), plain[run.call])
    assert (run.count["blocks computed"], run.count["blocks skipped"]) == (5, 0)
