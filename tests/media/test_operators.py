"""Operators have the adjoint and the pseudo-inverse that they say."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dit_tools.media.operators import Bicubic, Blur, Grey, Keep, Pool
from tests.support import photographs

MASK = (np.random.default_rng(3).random((1, 1, 24, 32)) < 0.4).astype(float)
EVERY = {
    "keep": Keep(MASK), "grey": Grey(), "pool": Pool(4), "blur": Blur(1.3), "bicubic": Bicubic(4, (24, 32)),
}  # fmt: skip


@pytest.fixture(params=EVERY, ids=str)
def operator(request):
    return EVERY[request.param]


def image(seed: int = 0) -> np.ndarray:
    return photographs.scene(24, 32, seed).astype(float).transpose(2, 0, 1)[None]


def test_the_adjoint_is_the_transpose(operator) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 24, 32))
    y = rng.standard_normal(operator.apply(x).shape)
    assert np.vdot(operator.apply(x), y) == pytest.approx(np.vdot(x, operator.adjoint(y)), rel=1e-9)


def test_the_inverse_has_the_same_measurement(operator) -> None:
    y = operator.apply(image())
    again = operator.apply(operator.inverse(y))
    assert abs(again - y).max() < (0.06 if isinstance(operator, Blur) else 1e-6)


def test_a_consistent_image_measures_what_it_should(operator) -> None:
    y, other = operator.apply(image()), image(1)
    errors = [np.square(operator.apply(operator.consistent(other, y, s)) - y).mean() for s in (0, 0.5, 1)]
    assert errors[0] > errors[1] > errors[2]
    if not isinstance(operator, Blur):
        assert errors[2] < 1e-12 and errors[1] == pytest.approx(errors[0] / 4)
        fitting = operator.consistent(other, y)
        assert np.allclose(operator.consistent(fitting, y), fitting)


def test_bicubic_is_that_of_pillow() -> None:
    x = image()
    made = EVERY["bicubic"].apply(x)[0]
    for channel in range(3):
        flat = Image.fromarray(x[0, channel].astype(np.float32))
        assert np.allclose(made[channel], np.asarray(flat.resize((8, 6), Image.Resampling.BICUBIC)), atol=1e-5)


def test_blur_damped_by_nothing_is_undone() -> None:
    assert np.allclose(Blur(0.6, 0.0).inverse(Blur(0.6).apply(image())), image(), atol=1e-6)
