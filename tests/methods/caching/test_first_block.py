"""First-block cache on a small network: the gate and what is put in place of the other blocks."""

from __future__ import annotations

import pytest
import torch

from tests.support import small


@pytest.fixture(scope="module")
def model():
    return small.pixart()


@pytest.mark.parametrize("order", [0, 1])
def test_decisions_and_outputs_follow_the_formula(model, order):
    """Blocks 1 and the last one are recorded; decisions and outputs are derived from them."""
    threshold, steps = 0.05, 16
    residuals, lefts, ends, computed = [], [], {}, []
    blocks = model.network.blocks()

    def first(module, args, kwargs, output):
        residuals.append(output - args[0])
        lefts.append(output)

    handles = [
        blocks[0].module.register_forward_hook(first, with_kwargs=True),
        blocks[1].module.ff.register_forward_hook(lambda *_: computed.append(len(lefts) - 1)),
        model.network.module.norm_out.register_forward_pre_hook(
            lambda m, args: ends.__setitem__(len(lefts) - 1, args[0])
        ),
    ]
    chosen = small.plan(f"first-block:threshold={threshold},order={order}", steps)
    small.final(model, small.conditions(), chosen)
    for handle in handles:
        handle.remove()

    full = [0]
    for call in range(1, steps):
        kept = residuals[full[-1]]
        change = ((residuals[call] - kept).abs().mean() / kept.abs().mean()).item()
        if change < threshold and call < steps - 1:
            added = ends[full[-1]] - lefts[full[-1]]
            if order and len(full) > 1:
                before = ends[full[-2]] - lefts[full[-2]]
                slope = (added - before) / (full[-1] - full[-2])
                added = added + slope * (call - full[-1])
            near = 1e-5 if order else 0
            torch.testing.assert_close(ends[call], lefts[call] + added, rtol=near, atol=near)
        else:
            full.append(call)
    assert computed == full
    assert 2 < len(full) < steps - 2, "the threshold must separate"


def test_more_is_skipped_at_a_higher_threshold(model):
    counts = []
    for threshold in (0, 0.02, 0.1, 1e9):
        _, run = small.final(model, small.conditions(), small.plan(f"first-block:threshold={threshold}", 16))
        counts.append(run.count["blocks skipped"])
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 14 * 3)


def test_warmup_and_max_skips(model):
    chosen = small.plan("first-block:threshold=1e9,warmup=3,max_skips=2", 10)
    generator, run = small.steps(model, small.conditions(), chosen)
    skipped, before = [], 0
    for _ in generator:
        skipped.append(run.count["blocks skipped"] > before)
        before = run.count["blocks skipped"]
    assert [i for i, skip in enumerate(skipped) if not skip] == [0, 1, 2, 5, 8, 9]
