"""Helpers of schedules: Beta quantiles from first principles."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.methods.schedules._ramps import beta_cdf, beta_quantile, linspace, round_to_float32

SHAPES = st.floats(0.3, 30)


@given(a=SHAPES, b=SHAPES, p=st.floats(1e-6, 1 - 1e-6))
def test_quantile_is_the_inverse_of_the_distribution(a, b, p):
    x = beta_quantile(p, a, b)
    # Near 1 numbers lie so far apart that the distribution takes steps between them.
    low, high = (beta_cdf(float(np.nextafter(x, end)), a, b) for end in (0.0, 1.0))
    assert low - 1e-8 <= p <= high + 1e-8


@given(a=SHAPES, b=SHAPES, x=st.floats(1e-3, 0.999))
def test_symmetry(a, b, x):
    assert beta_cdf(x, a, b) == pytest.approx(1 - beta_cdf(1 - x, b, a), abs=1e-12)


@pytest.mark.parametrize("x", [0.001, 0.1, 0.5, 0.77, 0.999])
def test_closed_forms(x):
    assert beta_cdf(x, 0.5, 0.5) == pytest.approx(2 / math.pi * math.asin(math.sqrt(x)), abs=1e-14)
    assert beta_cdf(x, 1.0, 4.0) == pytest.approx(1 - (1 - x) ** 4, abs=1e-14)
    assert beta_cdf(x, 2.0, 2.0) == pytest.approx(3 * x**2 - 2 * x**3, abs=1e-14)
    assert beta_quantile(x, 3.0, 1.0) == pytest.approx(x ** (1 / 3), abs=1e-14)


def test_against_numerical_integration():
    """With x = u^(1/0.6) the integrand of Beta(0.6, 0.6) is smooth near 0."""
    u = (np.arange(2_000_000) + 0.5) / 2_000_000 * 0.3**0.6
    area = np.mean((1 - u ** (1 / 0.6)) ** -0.4) * 0.3**0.6 / 0.6
    whole = math.gamma(0.6) ** 2 / math.gamma(1.2)
    assert beta_cdf(0.3, 0.6, 0.6) == pytest.approx(area / whole, rel=1e-9)


def test_ends():
    assert (beta_quantile(0.0, 0.6, 0.6), beta_quantile(1.0, 0.6, 0.6)) == (0.0, 1.0)
    assert (beta_cdf(0.0, 2, 3), beta_cdf(1.0, 2, 3)) == (0.0, 1.0)


@pytest.mark.parametrize("count", [2, 7, 1000])
def test_linspace_is_numpys_bit_for_bit(count):
    assert linspace(0.999, 1 / 3, count) == np.linspace(0.999, 1 / 3, count).tolist()
    assert linspace(0.3, 0.1, 1) == [0.3]


def test_single_precision():
    assert round_to_float32([0.1, 1 / 3]) == np.array([0.1, 1 / 3], dtype=np.float32).tolist()
