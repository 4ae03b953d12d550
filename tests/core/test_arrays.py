"""Array helpers give the same in numpy and in torch."""

import numpy as np
import pytest
import torch

from dit_tools.core import arrays
from tests.support.gaussian import start

BOTH = pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])


@BOTH
def test_concat_and_split_are_inverse(convert):
    x = convert(start())
    joined = arrays.concat([x, x * 2])
    one, two = arrays.split(joined, 2)
    assert joined.shape == (6, 2, 4, 5) and type(joined) is type(x)
    assert (one == x).all() and (two == x * 2).all()


@BOTH
def test_reductions_per_sample(convert):
    x = start()
    assert arrays.sample_sum(convert(x)).shape == (3, 1, 1, 1)
    assert np.asarray(arrays.sample_sum(convert(x))) == pytest.approx(x.sum(axis=(1, 2, 3), keepdims=True))
    assert np.asarray(arrays.sample_std(convert(x))) == pytest.approx(x.std(axis=(1, 2, 3), keepdims=True, ddof=1))


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_all_finite(convert, bad):
    x = start()
    assert arrays.all_finite(convert(x))
    x[0, 0, 0, 0] = bad
    assert not arrays.all_finite(convert(x))


@BOTH
def test_conversions(convert):
    x = convert(start("float32"))
    assert arrays.is_torch(x) == isinstance(x, torch.Tensor)
    assert arrays.namespace(x).__name__ in ("numpy", "torch")
    assert isinstance(arrays.to_numpy(x), np.ndarray)
    made = arrays.convert_like(start(), x)
    assert type(made) is type(x) and made.dtype == x.dtype
