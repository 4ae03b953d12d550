"""Units that skip by themselves: E-DiT's block cache, TaylorSeer by modules, HarmoniCa's table."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.blocks import Block, BlockSpec
from dit_tools.core.errors import InputError, UnsupportedError
from dit_tools.core.forecast import Forecast
from dit_tools.core.run import RunState
from dit_tools.methods.caching.e_dit import WeakBlocks
from dit_tools.models.calibration import Calibration
from dit_tools.nn.blocks import modules
from tests.support import small


@pytest.fixture(scope="module")
def model():
    return small.pixart()


def outputs_of(module):
    """A list that fills with what a module gives; and the handle of the hook."""
    seen = []
    return seen, module.register_forward_hook(lambda m, a, o: seen.append(o))


def test_modules_are_attention_and_mlp_in_order(model):
    found = modules(model.network.blocks())
    names = [name.removeprefix("transformer_blocks.") for name, _ in found]
    assert names[:3] == ["0.attn1", "0.attn2", "0.ff"]
    assert len(names) == 3 * 4


@pytest.mark.parametrize("order", [0, 1])
def test_taylorseer_by_modules_forecasts_what_a_module_gave(model, order):
    """The MLP's hook sees full calls only; what the block gets is the series through them."""
    block = model.network.blocks()[1].module
    inside, one = outputs_of(block.ff.net[0])  # below the hook
    outside: list[torch.Tensor] = []
    cache = f"taylorseer:level=module,order={order},interval=3,warmup=2"
    generator, run = small.steps(model, small.conditions(), small.plan(cache, 8))
    computed = []
    for _ in generator:
        if not computed:
            original = block.ff.forward

            def watch(*args, original=original, **kwargs):
                outside.append(original(*args, **kwargs))
                return outside[-1]

            block.ff.forward = watch
        computed.append(len(inside))
    block.ff.forward = original
    one.remove()
    assert computed == [1, 2, 2, 2, 3, 3, 3, 4]
    forecast = Forecast(order)
    forecast.learn(1, outside[0])
    if order == 0:
        assert torch.equal(outside[1], forecast.at(2))
        assert torch.equal(outside[2], forecast.at(3))
    assert not torch.equal(outside[3], outside[2])
    assert run.count["modules skipped"] == 4 * 12


def test_modules_are_nearer_than_blocks_at_the_same_interval(model):
    plain, _ = small.final(model, small.conditions(), small.plan("none", 12))
    errors = []
    for level in ("module", "block"):
        cache = f"taylorseer:order=0,interval=3,level={level}"
        x, _ = small.final(model, small.conditions(), small.plan(cache, 12))
        errors.append(float((x - plain).abs().mean()))
    assert 0 < errors[0] < errors[1]


def test_a_block_is_weak_while_little_has_changed_or_while_it_adds_little():
    entered, added = torch.ones(1, 2, 3), torch.full((1, 2, 3), 0.1)
    by_size, by_change = WeakBlocks(0.2, 2, by_size=True), WeakBlocks(0.2, 0, by_size=False)
    for policy in (by_size, by_change):
        policy.learn(0, entered, added)
    assert by_size.before(1, 0, entered * 9) and not by_size.before(3, 2, entered)
    assert by_change.before(1, 0, entered * 1.1) and not by_change.before(1, 0, entered * 1.3)
    by_size.learn(4, entered, added * 3)
    assert not by_size.before(5, 0, entered)
    assert not by_change.before(2, 0, entered * torch.nan)


def test_e_dit_reuses_what_blocks_added_in_the_later_part_of_a_run(model):
    cache = "e-dit:threshold=1e9,max_skips=1,start=0.5"
    generator, run = small.steps(model, small.conditions(), small.plan(cache, 8))
    skipped, before = [], 0
    for _ in generator:
        skipped.append(run.count["blocks skipped"] - before)
        before = run.count["blocks skipped"]
    assert skipped == [0, 0, 0, 0, 4, 0, 4, 0]


def test_e_dit_decides_for_every_block(model):
    """Between none and all: some threshold lets some blocks of a call skip and others not."""
    counts = set()
    for threshold in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2):
        cache = f"e-dit:threshold={threshold},gate=size,start=0.2"
        _, run = small.final(model, small.conditions(), small.plan(cache, 8))
        counts.add(run.count["blocks skipped"])
    assert len(counts) > 2


def table(calls: int, skipped: dict[int, list[int]]) -> Calibration:
    rho = np.full((calls, 12), 3.0, np.float32)
    for call, which in skipped.items():
        rho[call, which] = -3.0
    return Calibration({}, {"rho": rho})


def run_with(model, cache: str, calibration: Calibration, steps: int = 6):
    from dit_tools.tasks.calibrate.calibration_run import Probe

    probe = Probe(spec.parse("caching", cache), calibration)
    return small.final(model, small.conditions(), small.plan(probe, steps))


def test_harmonica_skips_what_its_table_says(model):
    handles = [outputs_of(module) for _, module in modules(model.network.blocks())]
    below = [
        outputs_of(module.net[0] if hasattr(module, "net") else module.to_q)
        for _, module in modules(model.network.blocks())
    ]
    _, run = run_with(model, "harmonica", table(6, {1: [0, 5], 2: [5], 3: [11]}))
    for _, handle in handles + below:
        handle.remove()
    assert [len(seen) for seen, _ in below] == [5, 6, 6, 6, 6, 4, 6, 6, 6, 6, 6, 5]
    assert (run.count["modules computed"], run.count["modules skipped"]) == (6 * 12 - 4, 4)


def test_harmonica_computes_everything_at_threshold_zero_and_above_all_routers(model):
    plain, _ = small.final(model, small.conditions(), small.plan("none", 6))
    same, _ = run_with(model, "harmonica:threshold=0", table(6, {2: [3]}))
    full, _ = run_with(model, "harmonica", table(6, {}))
    other, _ = run_with(model, "harmonica", table(6, {2: [3]}))
    assert torch.equal(plain, same) and torch.equal(plain, full)
    assert not torch.equal(plain, other)


def test_a_table_of_another_network_is_refused(model):
    with pytest.raises(InputError, match="rho of 7 x 12"):
        run_with(model, "harmonica", table(6, {}), steps=7)


def test_blocks_without_such_modules_are_refused():
    blocks = [Block(0, "blocks.0", torch.nn.Sequential(torch.nn.Linear(2, 2)), BlockSpec())]
    cache = spec.parse("caching", "harmonica:calibration=even")
    with pytest.raises(UnsupportedError, match="no attention or MLP"):
        cache.attach(blocks, RunState((1.0, 0.0), 1))
