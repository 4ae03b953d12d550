"""What every caching method promises, on every family that has a builder.

A new method needs one line in ``BOLD``: parameters at which it must skip something.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import get, names
from dit_tools.core.run import RunState
from dit_tools.nn.blocks import modules
from tests.contract.conftest import Subject, hooked, methods
from tests.support import small

BOLD = {
    "taylorseer": "taylorseer:interval=3,warmup=2",
    "cg-taylor": "cg-taylor:threshold=1e9,max_skips=2,warmup=2",
    "first-block": "first-block:threshold=1e9,max_skips=2",
    "encoder-propagation": "encoder-propagation:interval=3",
    "e-dit": "e-dit:threshold=1e9,max_skips=2,start=0",
    "harmonica": "harmonica:calibration=even",
    "ilf": "ilf:calibration=untrained",
    "magcache": "magcache:calibration=flat,threshold=1e9,max_skips=2,retention=0",
    "seacache": "seacache:threshold=1e9",
}
CACHES = [name for name in names("caching") if get("caching", name).info.needs]
MODULES = ["harmonica"]  # these skip attention and MLP in the blocks, not blocks
every_cache = pytest.mark.parametrize("cache", CACHES)
every_block_cache = pytest.mark.parametrize("cache", sorted({*CACHES} - {*MODULES}))
PAIR = small.Both()
SEPARATE = small.Both(together=False)


def run(subject: Subject, cache: Any = "none", guidance: Any = PAIR) -> tuple[Any, RunState]:
    cache = BOLD.get(cache, cache) if isinstance(cache, str) else cache
    return small.final(subject.model, subject.conditions, small.plan(cache, 8, guidance))


def counts(state: RunState) -> tuple[int, int]:
    """Blocks or modules computed and skipped."""
    both = ("blocks", "modules")
    return (sum(state.count[f"{kind} computed"] for kind in both), sum(state.count[f"{kind} skipped"] for kind in both))


def units(subject: Subject, cache: str) -> int:
    """How many blocks or modules a network call has."""
    blocks = subject.model.network.blocks()
    return len(modules(blocks)) if cache in MODULES else len(blocks)


def per_step(subject: Subject, cache: str, guidance: Any) -> list[tuple[int, int]]:
    """Blocks computed and skipped in every step."""
    generator, state = small.steps(subject.model, subject.conditions, small.plan(BOLD[cache], 8, guidance))
    made, before = [], (0, 0)
    for _ in generator:
        now = counts(state)
        made.append((now[0] - before[0], now[1] - before[1]))
        before = now
    return made


@pytest.mark.parametrize("cls", methods(room="caching", identity=True))
@pytest.mark.parametrize("guidance", ["none", PAIR, SEPARATE], ids=["alone", "pair", "separate"])
def test_identity_parameters_change_no_bit(subject, cls, guidance):
    plain, _ = run(subject, "none", guidance)
    same, state = run(subject, cls(**cls.info.identity), guidance)
    assert torch.equal(plain, same)
    assert counts(state)[1] == 0


@every_cache
def test_it_skips_and_the_counters_add_up(subject, cache):
    plain, _ = run(subject)
    ours, state = run(subject, cache)
    count = units(subject, cache)
    computed, skipped = counts(state)
    assert not torch.equal(plain, ours)
    assert ours.isfinite().all()
    assert skipped > 0
    assert computed + skipped == count * state.count["network calls"]


@every_block_cache
def test_skipped_blocks_are_not_computed(subject, cache):
    """Counted inside the blocks, below the hook."""
    calls = []
    blocks = subject.model.network.blocks()
    insides = [next(block.module.children()) for block in blocks]
    handles = [inside.register_forward_hook(lambda *_: calls.append(1)) for inside in insides]
    try:
        run(subject)
        plain, calls[:] = len(calls), []
        _, state = run(subject, cache)
    finally:
        for handle in handles:
            handle.remove()
    total = state.count["blocks computed"] + state.count["blocks skipped"]
    assert len(calls) / plain == pytest.approx(state.count["blocks computed"] / total, rel=0.1)
    assert len(calls) < plain


@every_cache
def test_first_and_last_step_are_computed_in_full(subject, cache):
    made = per_step(subject, cache, PAIR)
    assert made[0][1] == made[-1][1] == 0
    assert any(skipped for _, skipped in made)


@every_cache
def test_removal_restores_the_network(subject, cache):
    plain, _ = run(subject)
    run(subject, cache)
    assert not hooked(subject)
    assert torch.equal(run(subject)[0], plain)


@every_cache
def test_two_runs_in_a_row_are_the_same(subject, cache):
    assert torch.equal(run(subject, cache)[0], run(subject, cache)[0])


@every_cache
def test_a_run_after_an_aborted_run_is_the_same(subject, cache):
    before, _ = run(subject, cache)
    generator, _ = small.steps(subject.model, subject.conditions, small.plan(BOLD[cache], 8, PAIR))
    for _ in range(4):
        next(generator)
    assert hooked(subject)
    generator.close()
    assert not hooked(subject)
    assert torch.equal(run(subject, cache)[0], before)


@every_cache
def test_hooks_are_gone_after_an_exception(subject, cache, monkeypatch):
    network, before = subject.model.network, run(subject, cache)[0]
    last = network.blocks()[-1].module
    inside, calls = next(last.children()), []

    def fail(*_):
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("out of something")

    handle = inside.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of something"):
        run(subject, cache)
    handle.remove()
    assert not hooked(subject)
    assert torch.equal(run(subject, cache)[0], before)


@every_cache
def test_branches_called_one_after_the_other_keep_separate_state(subject, cache):
    """The conditional branch gives the same whether or not the other one runs in between."""
    alone, _ = run(subject, cache, "none")
    watched, state = run(subject, cache, small.Both(together=False, watch=True))
    assert state.count["network calls"] == 2 * 8
    assert torch.equal(alone, watched)


@every_cache
def test_a_branch_that_drops_out_starts_anew(subject, cache):
    """Call 4 is the first with other branches, if branches share a call; it must be in full."""
    count = units(subject, cache)
    made = per_step(subject, cache, small.Both(drop=4))
    if subject.model.family.batch_branches:
        assert made[4] == (count, 0)
    assert sum(made[5]) == count


@every_cache
def test_a_branch_that_comes_back_starts_anew(cache):
    """Its memory is as old as its absence, so its first call back is in full."""
    model = small.pixart()
    blocks, state = model.network.blocks(), RunState((1.0, 0.5, 0.0), 99)
    inputs = model.family.inputs(torch.randn(1, 4, 8, 8), 0.9, small.conditions()["cond"])
    calls = [("a", c) for c in range(4)] + [("b", 4), ("b", 5)] + [("a", c) for c in range(6, 10)]
    skipped = []
    with spec.parse("caching", BOLD[cache]).attach(blocks, state):
        for name, state.call in calls:
            state.branches = (name,)
            state.x, before = inputs["hidden_states"], counts(state)[1]
            model.network(**inputs)
            skipped.append(counts(state)[1] > before)
    assert any(skipped[:4]) and any(skipped[7:])
    assert not skipped[4] and not skipped[6]


@every_cache
def test_a_network_without_blocks_is_refused_with_the_remedy(cache):
    model = small.pixart()
    model.network.offers = frozenset()  # as OnnxNetwork
    with pytest.raises(UnsupportedError) as caught:
        small.final(model, small.conditions(), small.plan(cache))
    assert f"--cache {cache}" in str(caught.value)
    assert "--backend torch" in str(caught.value)
    with pytest.raises(UnsupportedError, match=f"--cache {cache}.*--backend torch"):
        spec.parse("caching", cache).attach([], RunState((1.0, 0.0), 1))


@every_cache
def test_two_runs_on_one_network_at_a_time_are_refused_and_the_first_goes_on(cache):
    model, chosen = small.pixart(), small.plan(BOLD[cache])
    expected, _ = small.final(model, small.conditions(), chosen)
    one, _ = small.steps(model, small.conditions(), chosen)
    two, _ = small.steps(model, small.conditions(), chosen)
    next(one)
    with pytest.raises(ValueError):
        next(two)
    *_, last = one
    assert torch.equal(last.x, expected)


def test_every_cache_has_bold_parameters_and_an_identity():
    assert set(BOLD) == set(CACHES)
    for name in [name for name in names("caching") if name != "none"]:
        assert get("caching", name).info.identity
