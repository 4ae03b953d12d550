"""TaylorSeer on a small network: its schedule, its forecasts, its counters."""

from __future__ import annotations

import pytest
import torch

from dit_tools.core.forecast import Forecast
from tests.support import small


@pytest.fixture(scope="module")
def model():
    return small.pixart()


def full_calls(model, cache: str, steps: int, guidance: str = "none") -> list[int]:
    """The steps at which blocks were computed, read from the counters after every step."""
    generator, run = small.steps(model, small.conditions(), small.plan(cache, steps, guidance=guidance))
    found, before = [], 0
    for step in generator:
        if run.count["blocks computed"] > before:
            found.append(step.index)
        before = run.count["blocks computed"]
    return found


@pytest.mark.parametrize(
    ("interval", "warmup", "expected"),
    [
        (1, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (2, 1, [0, 2, 4, 6, 8, 10, 11]),
        (5, 3, [0, 1, 2, 7, 11]),
        (4, 2, [0, 1, 5, 9, 11]),
        (99, 1, [0, 11]),
        (99, 40, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ],
)
def test_full_calls_are_warmup_then_every_nth_and_the_last(model, interval, warmup, expected):
    cache = f"taylorseer:interval={interval},warmup={warmup}"
    assert full_calls(model, cache, 12) == expected


def test_counters_count_blocks(model):
    _, run = small.final(model, small.conditions(), small.plan("taylorseer:interval=5,warmup=3", 12))
    assert run.count["blocks computed"] == 5 * 4
    assert run.count["blocks skipped"] == 7 * 4


def test_skipped_blocks_are_not_run(model):
    ran = []
    handles = [
        block.module.ff.register_forward_hook(lambda *_, i=block.index: ran.append(i))
        for block in model.network.blocks()
    ]
    small.final(model, small.conditions(), small.plan("taylorseer:interval=3,warmup=1", 6))
    for handle in handles:
        handle.remove()
    assert ran == [0, 1, 2, 3] * 3  # calls 0, 3 and 5


@pytest.mark.parametrize("form", ["taylor", "newton"])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_equals_a_series_for_every_block(model, monkeypatch, order, form):
    cache = f"taylorseer:order={order},interval=3,warmup=2,form={form}"
    ours, _ = small.final(model, small.conditions(), small.plan(cache, 12))

    full, calls = {0, 1, 4, 7, 10, 11}, {}
    for block in model.network.blocks():
        series, plain = Forecast(order, form), block.module.forward

        def forward(*args, series=series, plain=plain, index=block.index, **kwargs):
            call = calls[index] = calls.get(index, -1) + 1
            if call not in full:
                return series.at(call)
            output = plain(*args, **kwargs)
            series.learn(call, output)
            return output

        monkeypatch.setattr(block.module, "forward", forward)
    naive, _ = small.final(model, small.conditions(), small.plan("none", 12))
    assert torch.equal(ours, naive)


def test_error_falls_with_the_interval(model):
    plain, _ = small.final(model, small.conditions(4), small.plan(steps=24), (1, 2, 3, 4))
    errors = []
    for interval in (2, 4, 12):
        chosen = small.plan(f"taylorseer:interval={interval},order=0", 24)
        ours, _ = small.final(model, small.conditions(4), chosen, (1, 2, 3, 4))
        errors.append(float((ours - plain).abs().mean()))
    assert 0 < errors[0] < errors[1] < errors[2]


def test_a_picture_does_not_depend_on_its_batch(model):
    chosen = small.plan("taylorseer:interval=3", 9)
    both, _ = small.final(model, small.conditions(2), chosen, (3, 4))
    alone, _ = small.final(model, small.conditions(1), chosen, (3,))
    torch.testing.assert_close(both[:1], alone, rtol=1e-5, atol=1e-5)


def test_the_last_step_is_full_with_a_solver_of_two_calls_a_step(model):
    """Heun evaluates every inner time twice; the last time is in full both times."""
    chosen = small.plan("taylorseer:interval=99,warmup=1", 6, solver="heun")
    generator, run = small.steps(model, small.conditions(), chosen)
    computed = [run.count["blocks computed"] for _ in generator]
    assert run.count["network calls"] == 11
    assert run.count["blocks computed"] == 3 * 4  # the first call, and two at the last time
    assert computed[-1] - computed[-2] == 4


@pytest.mark.parametrize("order", [0, 2])
def test_half_precision_networks_stay_in_half_precision(order):
    model = small.pixart()
    model.network.module.bfloat16()
    seen = []
    model.network.module.norm_out.register_forward_pre_hook(lambda m, a: seen.append(a[0].dtype))
    plain, _ = small.final(model, small.conditions(), small.plan(steps=10))
    chosen = small.plan(f"taylorseer:order={order},interval=2", 10)
    ours, _ = small.final(model, small.conditions(), chosen)
    assert set(seen) == {torch.bfloat16}
    assert 0 < float((ours - plain).norm() / plain.norm()) < 0.5
