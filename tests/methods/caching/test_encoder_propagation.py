"""Encoder propagation on a small network: which blocks run, what is reused, its two limits."""

from __future__ import annotations

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.run import RunState
from tests.support import small


@pytest.fixture(scope="module")
def model():
    return small.pixart()


def blocks_run(model, cache: str, steps: int) -> list[list[int]]:
    """The blocks that were computed in every step."""
    ran: list[list[int]] = []
    handles = [
        block.module.ff.register_forward_hook(lambda *_, i=block.index: ran[-1].append(i))
        for block in model.network.blocks()
    ]
    generator, _ = small.steps(model, small.conditions(), small.plan(cache, steps))
    ran.append([])
    for _ in generator:
        ran.append([])
    for handle in handles:
        handle.remove()
    return ran[:-1]


def test_trailing_blocks_are_computed_at_every_call(model):
    ran = blocks_run(model, "encoder-propagation:share=0.5,interval=3,warmup=1", 8)
    assert [len(blocks) for blocks in ran] == [4, 2, 2, 4, 2, 2, 4, 4]
    assert all(blocks[-2:] == [2, 3] for blocks in ran)


def test_early_keys_are_the_published_ones_scaled(model):
    full = {0, 1, 2, 3, 5, 10, 15, 25, 35, 49}
    ran = blocks_run(model, "encoder-propagation:share=0.25,keys=early,warmup=1", 50)
    assert {i for i, blocks in enumerate(ran) if len(blocks) == 4} == full
    ran = blocks_run(model, "encoder-propagation:share=0.25,keys=early,warmup=1", 25)
    assert {i for i, blocks in enumerate(ran) if len(blocks) == 4} == {0, 1, 2, 5, 8, 12, 18, 24}


@torch.no_grad()
def test_what_the_leading_blocks_add_is_reused_on_the_current_input(model):
    blocks, run = model.network.blocks(), RunState((1.0, 0.5, 0.0), 99)
    condition, ends = small.conditions()["cond"], []
    entered = []
    handles = [
        blocks[0].module.register_forward_pre_hook(
            lambda m, args, kwargs: entered.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
        blocks[2].module.register_forward_pre_hook(
            lambda m, args, kwargs: ends.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
    ]
    cache = spec.parse("caching", "encoder-propagation:interval=9,warmup=1")
    with cache.attach(blocks, run):
        for run.call in range(3):
            run.branches = ("cond",)
            x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(run.call))
            model.network(**model.family.inputs(x, 0.9 - 0.1 * run.call, condition))
    for handle in handles:
        handle.remove()
    added = ends[0] - entered[0]
    for call in (1, 2):
        torch.testing.assert_close(ends[call], entered[call] + added, rtol=0, atol=0)
        assert not torch.equal(entered[call], entered[0])


def test_share_one_skips_all_blocks_and_interval_one_none(model):
    whole = blocks_run(model, "encoder-propagation:share=1,interval=2,warmup=1", 5)
    assert [len(blocks) for blocks in whole] == [4, 0, 4, 0, 4]
    plain, _ = small.final(model, small.conditions(), small.plan(steps=5))
    same, run = small.final(model, small.conditions(), small.plan("encoder-propagation:interval=1", 5))
    assert torch.equal(plain, same) and run.count["blocks skipped"] == 0
