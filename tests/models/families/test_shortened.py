"""Text that no image reads is left out of a call, and changes nothing but rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dit_tools.core.size import Size
from dit_tools.models.backends.torch_network import TorchNetwork
from dit_tools.models.families._shapes import MASK, STATES, UNIT, read_only
from dit_tools.models.family import ConditionRequest
from tests.models.families import golden
from tests.support import flux, pixart, sana


@pytest.fixture(scope="module", params=[pixart, sana], ids=["pixart", "sana"])
def model(request: pytest.FixtureRequest) -> Any:
    return golden.model_from(request.param.pipeline())


def called(model: Any, texts: tuple[str, ...]) -> dict[str, Any]:
    """Forward arguments of the prompts."""
    condition = model.encode(ConditionRequest(texts, ("",) * len(texts), Size.square(64)))["cond"]
    shape = (len(texts), *model.family.latent_shape(Size.square(64)))
    return model.family.inputs(torch.randn(shape, generator=torch.Generator().manual_seed(0)), 0.5, condition)


def test_the_network_sees_a_multiple_of_what_is_read(model: Any) -> None:
    inputs = called(model, ("a cat", "a red apple on a table"))
    assert inputs[STATES].shape[1] > UNIT
    seen: list[int] = []
    hook = model.network.module.register_forward_pre_hook(
        lambda module, args, named: seen.append(named[STATES].shape[1]), with_kwargs=True
    )
    model.network(**inputs)
    hook.remove()
    assert seen == [UNIT]
    assert inputs[STATES].shape[1] > UNIT  # the caller's arguments stay as they were


def test_the_output_is_that_of_the_whole_text(model: Any) -> None:
    inputs = called(model, ("a cat", "a red apple on a table"))
    whole = TorchNetwork(model.network.module)(**inputs)
    assert torch.allclose(model.network(**inputs), whole, rtol=0, atol=1e-5 * float(whole.std()))


def test_a_picture_does_not_depend_on_its_neighbours_prompt(model: Any) -> None:
    """Bit for bit, while both are shorter than the unit."""
    long = called(model, ("a cat", "a red apple on a table"))
    short = called(model, ("a cat", "a dog"))
    assert torch.equal(model.network(**long)[0], model.network(**short)[0])


@pytest.mark.parametrize(("read", "length"), [(0, UNIT), (1, UNIT), (UNIT, UNIT), (UNIT + 1, 2 * UNIT), (90, 90)])
def test_the_last_position_that_any_picture_reads_stays(read: int, length: int) -> None:
    mask = torch.zeros(2, 90, dtype=torch.int64)
    if read:
        mask[1, read - 1] = 1
    made = read_only({STATES: torch.zeros(2, 90, 3), MASK: mask, "timestep": torch.zeros(2)})
    assert made[STATES].shape == (2, length, 3)
    assert made[MASK].shape == (2, length)
    assert made.keys() == {STATES, MASK, "timestep"}


def test_a_family_whose_text_stands_beside_the_picture_keeps_it() -> None:
    model = golden.model_from(flux.pipeline())
    inputs = {STATES: torch.zeros(1, 90, 3), MASK: torch.zeros(1, 90)}
    assert model.family.shortened(inputs) is inputs
