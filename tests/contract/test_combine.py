"""What every combination promises, on every family that has a builder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.registry import names
from dit_tools.core.run import RunState
from dit_tools.core.size import Size
from tests.contract.conftest import Subject, methods
from tests.support import loop, small

COMBINATIONS = [name for name in names("composition") if name != "none"]
every = pytest.mark.parametrize("name", COMBINATIONS)


def run(
    subject: Subject,
    combine: Any,
    guidance: Any = "cfg:scale=3",
    other: Any = None,
    cache: str = "none",
    steps: int = 5,
) -> tuple[Any, RunState]:
    """Latents of a run with ``other`` as second model, the subject itself if nothing is said."""
    model = subject.model
    solver = combine.own_solver or "euler"
    plan = replace(small.plan(cache, steps, guidance, solver=solver), combine=combine)
    x, noise = loop.start(model, plan, shape(model), (3,))
    times = plan.times(model, x.shape)
    state = RunState(times, plan.solver.calls(len(times) - 1))
    second = loop.Second(other or twin(model), subject.conditions)
    *_, last = loop.sample(model, subject.conditions, x, plan, noise, run=state, second=second)
    return last.x, state


def shape(model: Any) -> tuple[int, ...]:
    return model.family.latent_shape(Size.square(model.defaults.size))


def twin(model: Any, scale: float = 0.9) -> Any:
    """The same network, its output scaled."""
    return replace(model, network=Scaled(model.network, scale))


class Scaled:
    """A network that says ``scale`` times what another says."""

    def __init__(self, network: Any, scale: float):
        self.network, self.scale, self.calls = network, scale, 0
        self.offers = network.offers

    def __call__(self, **inputs: Any) -> Any:
        self.calls += 1
        return self.scale * self.network(**inputs)

    def blocks(self) -> list[Any]:
        return self.network.blocks()


@pytest.mark.parametrize("cls", methods(room="composition", identity=True))
@pytest.mark.parametrize("guidance", ["none", "cfg:scale=3"])
def test_identity_parameters_equal_the_first_model_bit_for_bit(subject, cls, guidance):
    solver = cls.own_solver or "euler"
    plain, _ = small.final(subject.model, subject.conditions, small.plan(steps=5, guidance=guidance, solver=solver))
    same, _ = run(subject, cls(**cls.info.identity), guidance)
    assert torch.equal(plain, same)


@every
def test_defaults_do_something(subject, name):
    combine = spec.parse("composition", name)
    plan = small.plan(steps=5, guidance="cfg:scale=3", solver=combine.own_solver or "euler")
    plain, _ = small.final(subject.model, subject.conditions, plan)
    ours, _ = run(subject, combine)
    assert ours.isfinite().all()
    assert not torch.equal(plain, ours)


@every
def test_two_runs_share_no_state(name):
    subject = Subject(small.pixart(), small.conditions())
    combine = spec.parse("composition", name)
    expected, _ = run(subject, combine)
    run(subject, combine, steps=3)
    assert torch.equal(run(subject, combine)[0], expected)


@every
def test_a_cache_keeps_the_two_models_apart(name):
    """Two networks of their own, each with its own hooks and history; afterwards both are free."""
    subject = Subject(small.pixart(), small.conditions())
    other = small.pixart()
    combine = spec.parse("composition", name)
    cached, state = run(subject, combine, other=other, cache="taylorseer:interval=2", steps=16)
    assert state.count["blocks skipped"] > 0
    exact, _ = run(subject, combine, other=other, cache="taylorseer:interval=1", steps=16)
    plain, _ = run(subject, combine, other=other, steps=16)
    assert torch.equal(exact, plain) and not torch.equal(cached, plain)
