"""What every step promises, and chains of them."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.core.errors import UsageError
from dit_tools.core.registry import get, names
from dit_tools.methods import degradation
from tests.support import photographs

EVERY = names("degradation")


def made(text: str, image: np.ndarray, seed: int = 0) -> np.ndarray:
    return degradation.parse(text).apply(image, np.random.default_rng(seed))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_seeds_spoil_equally(name, channels) -> None:
    image = photographs.scene()[..., :channels]
    kept = image.copy()
    first, again = made(name, image), made(name, image)
    assert (first == again).all() and first.dtype == np.float32 and first.shape[2] == channels
    assert (image == kept).all(), "the input was changed"
    assert first.shape != image.shape or (first != image).any()


@pytest.mark.parametrize("name", EVERY)
def test_the_neutral_parameter_changes_nothing(name) -> None:
    cls = get("degradation", name)
    if cls.info.identity is None:
        pytest.skip("has none")
    image = photographs.scene()
    assert (cls(**cls.info.identity).apply(image, np.random.default_rng(0)) == image).all()


def test_there_are_neutral_parameters_to_check() -> None:
    assert sum(get("degradation", name).info.identity is not None for name in EVERY) >= 5


def test_a_chain_is_its_steps_one_after_the_other() -> None:
    image = photographs.scene()
    rng = np.random.default_rng(4)
    step = get("degradation", "blur")(sigma=(0.5, 2.0)).apply(image, rng)
    step = get("degradation", "noise")(sigma=(1.0, 9.0)).apply(step, rng)
    assert (made("blur:sigma=0.5..2+noise:sigma=1..9", image, 4) == step).all()


@pytest.mark.parametrize("text", ["none", "noise", "blur:sigma=0.5..2.0+jpeg:quality=20.0..30.0"])
def test_a_chain_is_written_as_it_is_read(text) -> None:
    assert degradation.parse(str(degradation.parse(text))) == degradation.parse(text)
    image = photographs.scene()
    assert text != "none" or made(text, image) is image


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "empty step"), ("noise+", "empty step"), ("niose", "noise"), ("noise:sigma=-1", "out of range"),
     ("jpeg:quality=200", "out of range"), ("noise:sigma=9..1", "out of range")],
)  # fmt: skip
def test_a_chain_that_makes_no_sense_is_refused(text, said) -> None:
    with pytest.raises(UsageError, match=said):
        degradation.parse(text)
