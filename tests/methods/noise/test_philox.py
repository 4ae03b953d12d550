"""Philox noise: one stream per seed, independent of the batch, known numbers."""

import numpy as np
import pytest

from dit_tools.core import spec
from dit_tools.core.registry import names

ROOM = [pytest.param(spec.parse("noise", name), id=name) for name in names("noise")]


@pytest.mark.parametrize("noise", ROOM)
def test_a_picture_depends_on_its_seed_and_never_on_the_batch(noise):
    shape = (4, 6, 8)
    many = np.asarray(noise.draw(shape, (3, 1, 2)))
    assert many.shape == (3, 4, 6, 8) and many.dtype == np.float32
    for row, seed in enumerate((3, 1, 2)):
        assert (np.asarray(noise.draw(shape, (seed,)))[0] == many[row]).all()
    assert (many[0] != many[1]).any()


@pytest.mark.parametrize("noise", ROOM)
def test_a_stream_goes_on_and_starts_again(noise):
    stream, again = noise.stream((2, 3), (5, 6)), noise.stream((2, 3), (5, 6))
    first, second = np.asarray(stream.fresh()), np.asarray(stream.fresh())
    assert (first != second).all()
    assert (np.asarray(again.fresh()) == first).all()
    assert (np.asarray(again.fresh()) == second).all()
    assert (np.asarray(noise.draw((2, 3), (5, 6))) == first).all()


@pytest.mark.parametrize("noise", ROOM)
def test_it_is_standard_normal(noise):
    x = np.asarray(noise.draw((100_000,), (0, 2**32 - 1)))
    assert abs(x.mean(axis=1)).max() < 0.01 and abs(x.std(axis=1) - 1).max() < 0.01
    assert abs((x**4).mean() - 3) < 0.1
    assert abs(np.corrcoef(x)[0, 1]) < 0.01


def test_known_numbers():
    """The numbers of seed 42, which must never change: images are reproduced from them."""
    drawn = spec.parse("noise", "philox").draw((4,), (42,))[0]
    assert drawn.tolist() == pytest.approx([-1.4838411, -0.3366286, 0.2008333, -0.3036521], abs=1e-6)
