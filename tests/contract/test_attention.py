"""What every attention method promises, on every family that has a builder.

A new method needs one line in ``BOLD``: parameters at which it must save something.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import get, names
from dit_tools.core.run import RunState
from tests.contract.conftest import Subject, hooked, methods
from tests.support import small

BOLD = {"msw": "msw:windows=2,share=1", "re-ttention": "re-ttention:density=0.25,warmup=0.25,refresh=3"}
METHODS = [name for name in names("sparse_attention") if name != "none"]
every = pytest.mark.parametrize("name", METHODS)
PAIR = small.Both()


def run(subject: Subject, attention: Any, guidance: Any = PAIR, **fields: str) -> tuple[Any, RunState]:
    if isinstance(attention, str):
        attention = spec.parse("sparse_attention", BOLD.get(attention, attention))
    plan = small.plan(steps=8, guidance=guidance, attention=spec.format(attention), **fields)
    return small.final(subject.model, subject.conditions, plan)


def linear(subject: Subject) -> bool:
    """Sana: no softmax attention over image tokens."""
    return subject.model.family.name == "sana"


@pytest.mark.parametrize("cls", methods(room="sparse_attention", identity=True))
@pytest.mark.parametrize("guidance", ["none", PAIR, small.Both(together=False)], ids=["alone", "pair", "separate"])
def test_identity_parameters_change_no_bit(subject, cls, guidance):
    plain, _ = run(subject, "none", guidance)
    same, _ = run(subject, cls(**cls.info.identity), guidance)
    assert torch.equal(plain, same)


@every
def test_it_saves_pairs_and_stays_near(subject, name):
    if linear(subject):
        with pytest.raises(UnsupportedError, match=f"--attention {name}.*not softmax"):
            run(subject, name)
        return
    plain, _ = run(subject, "none")
    ours, state = run(subject, name)
    assert not torch.equal(plain, ours)
    assert (plain - ours).std() < plain.std()
    assert state.count["attention pairs saved"] > 0


@every
def test_removal_restores_the_network_and_runs_share_nothing(subject, name):
    if linear(subject):
        return
    plain, _ = run(subject, "none")
    first, _ = run(subject, name)
    assert not hooked(subject)
    assert torch.equal(run(subject, name)[0], first)
    assert torch.equal(run(subject, "none")[0], plain)


@every
def test_branches_called_one_after_the_other_keep_separate_state(subject, name):
    if linear(subject):
        return
    alone, _ = run(subject, name, "none")
    watched, _ = run(subject, name, small.Both(together=False, watch=True))
    assert torch.equal(alone, watched)


@every
def test_a_run_after_an_aborted_run_is_the_same(name):
    model, plan = small.pixart(), small.plan(attention=BOLD[name])
    before, _ = small.final(model, small.conditions(), plan)
    generator, _ = small.steps(model, small.conditions(), plan)
    for _ in range(2):
        next(generator)
    generator.close()
    assert torch.equal(small.final(model, small.conditions(), plan)[0], before)


@every
def test_it_goes_with_a_cache_around_it(subject, name):
    if linear(subject):
        return
    cached, state = run(subject, name, cache="taylorseer:interval=2,warmup=2")
    assert cached.isfinite().all()
    assert state.count["blocks skipped"] > 0 and state.count["attention pairs saved"] > 0


@every
def test_a_network_without_blocks_is_refused(name):
    with pytest.raises(UnsupportedError, match=f"--attention {name}.*--backend torch"):
        with spec.parse("sparse_attention", BOLD[name]).attach([], RunState((1.0, 0.0), 1, (4, 4))):
            pass


def test_every_method_has_bold_parameters_and_an_identity():
    assert set(BOLD) == set(METHODS)
    assert all(get("sparse_attention", name).info.identity for name in METHODS)
