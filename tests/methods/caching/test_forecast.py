"""The arithmetic of forecasts, on numpy and torch, against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core.forecast import Forecast, map_tree, relative_error

KINDS = {"numpy": np.asarray, "torch": torch.as_tensor}
ASIDE = np.array([0.5, -1.0, 2.0])  # several elements at once


def polynomial(degree: int, s: float) -> np.ndarray:
    return sum((i + 1) * ASIDE * (s / 10) ** i for i in range(degree + 1))


def told(order: int, form: str, calls: list[int], value, kind=np.asarray) -> Forecast:
    forecast = Forecast(order, form)
    for call in calls:
        forecast.learn(call, kind(value(call)))
    return forecast


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("order", range(5))
@given(gaps=st.lists(st.integers(1, 6), min_size=5, max_size=8), ahead=st.integers(1, 6), degree=st.integers(0, 4))
def test_newton_is_exact_up_to_its_order_whatever_the_gaps(kind, order, gaps, ahead, degree):
    calls = [sum(gaps[:i]) for i in range(len(gaps))]
    degree = min(degree, order)
    forecast = told(order, "newton", calls, lambda s: polynomial(degree, s), kind)
    at = calls[-1] + ahead
    np.testing.assert_allclose(forecast.at(at), polynomial(degree, at), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("order", range(1, 5))
def test_taylor_is_exact_on_straight_lines(order):
    forecast = told(order, "taylor", [0, 1, 2, 7, 12, 17], lambda s: polynomial(1, s))
    np.testing.assert_allclose(forecast.at(20), polynomial(1, 20), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("gap", [1, 3, 5])
def test_taylor_misses_a_parabola_by_exactly_what_the_published_form_misses(kind, gap):
    forecast = told(2, "taylor", [0, gap, 2 * gap], lambda s: 0.25 * ASIDE * s * s, kind)
    for k in range(1, gap + 1):
        truth = 0.25 * ASIDE * (2 * gap + k) ** 2
        np.testing.assert_allclose(forecast.at(2 * gap + k), truth - 0.25 * ASIDE * gap * k)


@given(
    values=st.lists(st.floats(-9, 9), min_size=2, max_size=7),
    order=st.integers(0, 4),
    gap=st.integers(1, 5),
    k=st.integers(1, 5),
)
def test_taylor_with_equal_gaps_is_the_papers_sum_of_backward_differences(values, order, gap, k):
    forecast = told(order, "taylor", [gap * i for i in range(len(values))], lambda s: np.array([values[s // gap]]))
    differences, row = [], list(values)
    while row and len(differences) <= order:
        differences.append(row[-1])
        row = [b - a for a, b in zip(row, row[1:], strict=False)]
    expected = sum(d * (k / gap) ** i / math.factorial(i) for i, d in enumerate(differences))
    at = gap * (len(values) - 1) + k
    assert forecast.at(at)[0] == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_newton_is_the_polynomial_that_numpy_fits_through_the_nodes():
    calls, values = [0, 1, 4, 9], np.random.default_rng(0).normal(size=(4, 3))
    forecast = told(3, "newton", calls, dict(zip(calls, values, strict=True)).__getitem__)
    fitted = np.polyfit(calls, values, 3)
    at = 12
    np.testing.assert_allclose(forecast.at(at), [np.polyval(c, at) for c in fitted.T], rtol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_taylor_equals_diffusers_own_state_at_uneven_calls(order):
    from diffusers.hooks.taylorseer_cache import TaylorSeerState

    theirs, ours = TaylorSeerState(torch.float32, order), Forecast(order)
    generator = torch.Generator().manual_seed(0)
    for call in (0, 1, 2, 7, 9):
        value = torch.randn(2, 3, generator=generator)
        theirs.current_step = call
        theirs.update((value,))
        ours.learn(call, value)
    for call in (10, 11, 14):
        theirs.current_step = call
        torch.testing.assert_close(ours.at(call), theirs.predict()[0], rtol=1e-6, atol=1e-6)


def test_numpy_and_torch_agree():
    values = np.random.default_rng(1).normal(size=(4, 2, 5)).astype("float32")
    one = told(3, "taylor", [0, 1, 2, 3], values.__getitem__)
    two = told(3, "taylor", [0, 1, 2, 3], values.__getitem__, torch.as_tensor)
    assert one.at(6).dtype == np.float32
    np.testing.assert_allclose(one.at(6), two.at(6).numpy(), rtol=1e-6, atol=1e-6)


def test_order_zero_gives_back_the_last_value_itself():
    last = torch.randn(3)
    forecast = Forecast(0)
    forecast.learn(0, torch.zeros(3))
    forecast.learn(1, last)
    assert forecast.at(9) is last


def test_every_element_of_a_tuple_is_forecast_and_none_stays_none():
    forecast = Forecast(1)
    for call in (0, 1):
        forecast.learn(call, (np.array([1.0 * call]), None, np.array([5.0 - call])))
    first, nothing, last = forecast.at(3)
    assert (first[0], nothing, last[0]) == (3.0, None, 2.0)


def test_half_precision_comes_back_as_such_but_loses_nothing_on_the_way():
    values = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    short, exact = Forecast(3), Forecast(3)
    for call, value in enumerate(values):
        short.learn(call, value)
        exact.learn(call, value.double())
    made, truth = short.at(13), exact.at(13)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.double(), truth, rtol=2**-8, atol=1e-4)


def test_each_pairs_elements_of_equal_trees_only():
    assert map_tree(lambda a, b: a - b, (5, None, (1, 2)), (3, 4, (1, 0))) == (2, None, (0, 2))
    with pytest.raises(ValueError):
        map_tree(lambda a, b: a, (1, 2), (1, 2, 3))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_relative_error_is_the_ratio_of_means(kind):
    truth, guess = kind(np.array([2.0, -4.0])), kind(np.array([2.5, -3.0]))
    assert relative_error(guess, truth) == pytest.approx(0.75 / 3.0)
    assert math.isnan(relative_error(guess, truth * 0))
