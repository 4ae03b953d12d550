"""What every way to high resolution promises, on every family that has a builder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.registry import get, names
from dit_tools.core.size import Size
from dit_tools.methods.highres._positions import Positions, interpolate_frequencies, trained_frequencies
from tests.contract.conftest import Subject, hooked, methods
from tests.support import loop, small

METHODS = [name for name in names("highres") if name != "none"]
POSITIONS = [name for name in METHODS if issubclass(get("highres", name), Positions)]
PAIR = small.Both()


def run(subject: Subject, highres: Any, factor: float = 1.0, **fields: str) -> Any:
    """Latents of four steps at ``factor`` times the subject's size."""
    text = highres if isinstance(highres, str) else spec.format(highres)
    plan = small.plan(steps=4, guidance=PAIR, highres=text, **fields)
    size = round(subject.model.defaults.size * factor)
    x, noise = loop.start(subject.model, plan, subject.model.family.latent_shape(Size.square(size)), (3,))
    *_, last = loop.sample(subject.model, subject.conditions, x, plan, noise)
    return last.x


def sizes(subject: Subject) -> list[float]:
    """Factors of the size that a family can draw; DiT has one size."""
    return [1.0] if subject.model.family.name == "dit" else [1.0, 1.5]


@pytest.mark.parametrize("cls", methods(room="highres", identity=True))
def test_identity_parameters_change_no_bit_at_any_size(subject, cls):
    for factor in sizes(subject):
        same = run(subject, cls(**cls.info.identity), factor)
        assert torch.equal(run(subject, "none", factor), same)


@pytest.mark.parametrize("name", METHODS)
def test_at_the_models_own_size_nothing_changes(subject, name):
    assert torch.equal(run(subject, "none"), run(subject, name))


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_change_larger_pictures_and_are_put_back(subject, name):
    family = subject.model.family.name
    if family == "dit":
        with pytest.raises(UsageError, match="draws one size"):
            run(subject, name, 1.5)
        return
    if subject.model.family.positions() is None:
        with pytest.raises(UnsupportedError, match=f"--highres {name}: .*no positions"):
            run(subject, name, 1.5)
        return
    before = run(subject, "none", 1.5)
    made = run(subject, name, 1.5)
    one_frequency = family == "lumina2" and name == "ntk"  # of two channels; NTK keeps the highest
    assert made.isfinite().all() and torch.equal(made, before) == one_frequency
    assert not hooked(subject)
    assert torch.equal(run(subject, name, 1.5), made)
    assert torch.equal(run(subject, "none", 1.5), before)


def test_trained_frequencies_give_the_network_as_it_is(subject):
    """What is put in place of a family's own positions is what the family computes itself."""
    from dit_tools.nn.positions import rescale_positions

    model = subject.model
    if model.family.positions() is None:
        return
    size = model.defaults.size
    shape = model.family.latent_shape(Size.square(size))
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    inputs = model.family.inputs(x, 0.6, subject.conditions["cond"])
    before = model.network(**inputs)
    with rescale_positions(
        model.network.module,
        model.network.positions,
        (4, 4),
        (4, 4),
        (trained_frequencies, trained_frequencies),
        1.0,
        "--highres x",
    ):
        again = model.network(**inputs)
    torch.testing.assert_close(again, before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", POSITIONS)
def test_it_goes_with_other_joints(subject, name):
    if subject.model.family.positions() is None:
        return
    for fields in ({"attention": "msw:share=1"}, {"tokens": "ras:start=2"}):
        assert run(subject, name, 1.5, **fields).isfinite().all()
    assert run(subject, f"{name}:proportional=true", 1.5).isfinite().all()


def test_pixart_interpolates_by_itself():
    """``interpolate_frequencies`` frequencies are what PixArt does at a larger size when nothing is said."""
    from dit_tools.nn.positions import rescale_positions

    model = small.pixart()
    x = torch.randn(1, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    inputs = model.family.inputs(x, 0.6, small.conditions()["cond"])
    axes = (lambda d, b: interpolate_frequencies(d, b, 1.5), lambda d, b: interpolate_frequencies(d, b, 2.0))
    with rescale_positions(model.network.module, model.network.positions, (6, 8), (4, 4), axes, 1.0, "--highres x"):
        made = model.network(**inputs)
    torch.testing.assert_close(made, model.network(**inputs), atol=1e-5, rtol=1e-4)
