"""What every guidance method promises, on every family that has a builder."""

from __future__ import annotations

import pytest
import torch

from dit_tools.core import spec
from tests.contract.conftest import methods
from tests.support import small


@pytest.mark.parametrize("cls", methods(room="guidance", identity=True))
def test_identity_parameters_equal_no_guidance_bit_for_bit(subject, cls):
    plain, _ = small.final(subject.model, subject.conditions, small.plan(steps=6))
    chosen = small.plan(steps=6, guidance=cls(**cls.info.identity))
    same, _ = small.final(subject.model, subject.conditions, chosen)
    assert torch.equal(plain, same)


@pytest.mark.parametrize("cls", methods(room="guidance", identity=True))
def test_defaults_do_something(subject, cls):
    plain, _ = small.final(subject.model, subject.conditions, small.plan(steps=6))
    guided, _ = small.final(subject.model, subject.conditions, small.plan(steps=6, guidance=cls()))
    assert not torch.equal(plain, guided)


@pytest.mark.parametrize("cls", methods(room="guidance"))
def test_two_guides_of_one_method_share_no_state(cls):
    """A run between the steps of another one, from the same method object, changes nothing."""
    model, chosen = small.pixart(), small.plan(steps=6, guidance=cls())
    expected, _ = small.final(model, small.conditions(), chosen)
    one, _ = small.steps(model, small.conditions(), chosen)
    two, _ = small.steps(model, small.conditions(), chosen, seeds=(99,))
    taken = [step for step, _ in zip(one, two, strict=True)]
    assert torch.equal(taken[-1].x, expected)
    assert cls() == spec.parse("guidance", cls.info.name)


@pytest.mark.parametrize("cls", methods(room="guidance"))
def test_only_declared_branches_are_asked_for(cls):
    """A condition that a guidance does not declare is not even given."""
    declared = {branch.name for branch in cls().branches}
    given = {name: value for name, value in small.conditions().items() if name in declared}
    final, _ = small.final(small.pixart(), given, small.plan(steps=6, guidance=cls()))
    assert final.isfinite().all()
