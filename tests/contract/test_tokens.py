"""What every token method promises, on every family that has a builder.

A new method needs one line in ``BOLD``: parameters at which it must leave tokens out.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.registry import get, names
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from dit_tools.methods.token_reduction._cells import token_mask
from dit_tools.nn.token_subset import Memory, TokenSubset
from tests.contract.conftest import Subject, hooked, methods
from tests.support import small

BOLD = {"ras": "ras:ratio=0.5,start=2,refresh=4", "jit": "jit:first=0.5,second=0.75,until=0.4..0.7"}
METHODS = [name for name in names("token_reduction") if name != "none"]
every = pytest.mark.parametrize("name", METHODS)
PAIR = small.Both()


def run(subject: Subject, tokens: Any, guidance: Any = PAIR, seeds: tuple[int, ...] = (3,)) -> tuple[Any, RunState]:
    if isinstance(tokens, str):
        tokens = spec.parse("token_reduction", BOLD.get(tokens, tokens))
    plan = small.plan(steps=8, guidance=guidance, tokens=spec.format(tokens))
    conditions = subject.conditions if len(seeds) == 1 else doubled(subject.conditions)
    return small.final(subject.model, conditions, plan, seeds)


def doubled(conditions: dict[str, Any]) -> dict[str, Any]:
    """The same prompt for two images."""
    return {
        name: {key: torch.cat([value, value]) for key, value in given.items()} for name, given in conditions.items()
    }


def convolves(subject: Subject) -> bool:
    """Sana: its feed-forward layers convolve the grid, which needs all of it."""
    return subject.model.family.name == "sana"


@pytest.mark.parametrize("cls", methods(room="token_reduction", identity=True))
@pytest.mark.parametrize("guidance", ["none", PAIR, small.Both(together=False)], ids=["alone", "pair", "separate"])
def test_identity_parameters_change_no_bit(subject, cls, guidance):
    plain, _ = run(subject, "none", guidance)
    same, state = run(subject, cls(**cls.info.identity), guidance)
    assert torch.equal(plain, same)
    assert state.count["tokens skipped"] == 0


@every
def test_it_leaves_tokens_out_and_the_counters_add_up(subject, name):
    if convolves(subject):
        with pytest.raises(UnsupportedError, match=f"--tokens {name}: blocks of class Sana"):
            run(subject, name)
        return
    plain, _ = run(subject, "none")
    ours, state = run(subject, name)
    assert not torch.equal(plain, ours) and ours.isfinite().all()
    skipped, computed = state.count["tokens skipped"], state.count["tokens computed"]
    assert skipped > 0
    assert skipped + computed == 16 * state.count["network calls"]


@every
def test_removal_restores_the_network_and_runs_share_nothing(subject, name):
    if convolves(subject):
        return
    plain, _ = run(subject, "none")
    first, _ = run(subject, name)
    assert not hooked(subject)
    assert torch.equal(run(subject, name)[0], first)
    assert torch.equal(run(subject, "none")[0], plain)


@every
def test_two_pictures_are_those_of_two_runs(subject, name):
    """Each image chooses its own tokens."""
    if convolves(subject):
        return
    both, _ = run(subject, name, seeds=(3, 7))
    alone = [run(subject, name, seeds=(seed,))[0] for seed in (3, 7)]
    torch.testing.assert_close(both, torch.cat(alone), atol=2e-4, rtol=1e-3)


@every
def test_a_branch_called_in_between_changes_nothing(subject, name):
    """Both branches leave out the same tokens, and keep separate keys, values and outputs."""
    if convolves(subject):
        return
    alone, _ = run(subject, name, "none")
    watched, _ = run(subject, name, small.Both(together=False, watch=True))
    assert torch.equal(alone, watched)


@every
def test_branches_may_drop_out_and_be_perturbed(subject, name):
    if convolves(subject):
        return
    for guidance in (small.Both(drop=4), "soft-pag:scale=2,depth=0..0"):
        made, state = run(subject, name, guidance)
        assert made.isfinite().all() and state.count["tokens skipped"] > 0


def test_chosen_tokens_with_fresh_keys_give_what_all_tokens_give(subject):
    """Gather, positions, masks and scatter are right: at the same place nothing is stale."""
    if convolves(subject):
        return
    model, state = subject.model, RunState((1.0, 0.0), 1, (4, 4))
    shape = model.family.latent_shape(Size.square(model.defaults.size))
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    chosen = torch.tensor([[0, 3, 5, 6, 15], [1, 2, 4, 9, 12]])
    asked: list[Any] = [None, chosen]
    narrowing = TokenSubset(model.network.blocks(), state, lambda: asked.pop(0), "--tokens x")
    memory = Memory()
    narrowing.memory = lambda: memory
    inputs = model.family.inputs(x, 0.6, doubled(subject.conditions)["cond"])
    with narrowing.attached(remember=True):
        whole, some = (model.family.read(model.network(**inputs), x, 0.6) for _ in range(2))
    mask = token_mask(chosen, (4, 4), x).expand(whole.raw.shape)
    assert mask.sum() == 10 / 32 * mask.numel()
    torch.testing.assert_close(some.raw[mask], whole.raw[mask], atol=2e-5, rtol=1e-4)


@every
def test_a_run_after_an_aborted_run_is_the_same(name):
    model, plan = small.pixart(), small.plan(tokens=BOLD[name])
    before, _ = small.final(model, small.conditions(), plan)
    generator, _ = small.steps(model, small.conditions(), plan)
    for _ in range(5):
        next(generator)
    generator.close()
    assert torch.equal(small.final(model, small.conditions(), plan)[0], before)


@every
def test_what_does_not_compose_is_refused_with_the_reason(name):
    with pytest.raises(UsageError, match=f"--attention msw and --tokens {name}: a window needs"):
        small.plan(attention="msw", tokens=name)
    with pytest.raises(UsageError, match=f"--tokens {name} and --cache output: a forecast"):
        small.plan(cache="output", tokens=name).check(small.pixart())


@every
def test_a_network_without_blocks_is_refused(name):
    with pytest.raises(UnsupportedError, match=f"--tokens {name}.*--backend torch"):
        with spec.parse("token_reduction", BOLD[name]).attach([], RunState((1.0, 0.0), 1, (4, 4))):
            pass


def test_every_method_has_bold_parameters_and_an_identity():
    assert set(BOLD) == set(METHODS)
    assert all(get("token_reduction", name).info.identity for name in METHODS)
