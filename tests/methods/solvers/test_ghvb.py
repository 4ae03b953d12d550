"""Momentum solvers: the weights, Adams-Bashforth as a limit, and stability."""

import numpy as np
import pytest

from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction
from dit_tools.methods.solvers.euler import Euler
from dit_tools.methods.solvers.ghvb import Ghvb, combine_slopes, slope_weights
from tests.support.gaussian import CASES, Gaussian, end, start

EVEN = [1 - i / 10 for i in range(11)]


class Linear:
    """``dx/dt = rate x``; seen from t = 1 to 0 it decays by ``exp(-rate)``."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, x, t):
        return Prediction(self.rate * x, "flow", x, t, Flow())


@pytest.mark.parametrize(
    ("order", "table"), [(2, (3, -1)), (3, (23, -16, 5)), (4, (55, -59, 37, -9)), (5, (1901, -2774, 2616, -1274, 251))]
)
def test_without_damping_the_weights_are_adams_bashforths(order, table):
    scale = {2: 2, 3: 12, 4: 24, 5: 720}[order]
    assert slope_weights(order, 1.0) == pytest.approx([w / scale for w in table])


@pytest.mark.parametrize("order", range(1, 6))
@pytest.mark.parametrize("b", [0.3, 0.7, 1.0])
def test_weights_sum_to_one_so_that_a_constant_slope_is_followed(order, b):
    assert sum(slope_weights(order, b)) == pytest.approx(1.0)
    assert combine_slopes([np.array([2.0])] * order, b) == pytest.approx([2.0])


@pytest.mark.parametrize("order", range(2, 6))
@pytest.mark.parametrize("b", [0.4, 0.8, 1.0])
def test_weights_undo_the_lag_of_the_momentum_on_polynomials(order, b):
    """On ``f(n) = n^(k-1)`` in steady state a step is the integral of f, as order k means."""
    n, length, power = 0, 400, order - 1
    slopes = [float(n - i) ** power for i in range(length)]  # newest first
    momentum, kept = slopes[-1], []
    for slope in slopes[::-1]:
        momentum = (1 - b) * momentum + b * slope
        kept = [momentum, *kept][:order]
    assert combine_slopes(kept, b) == pytest.approx(1 / (power + 1), rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_order_one_without_momentum_is_euler(case):
    path, kind = CASES[case]
    ours = end(Ghvb(order=1, beta=1.0), Gaussian(path, kind), start(), EVEN)
    assert ours == pytest.approx(end(Euler(), Gaussian(path, kind), start(), EVEN), abs=1e-9)


@pytest.mark.parametrize("form", ["ghvb", "hb"])
def test_equals_a_plain_loop_of_the_published_rule(form):
    order, beta, rate, x = 3, 0.6, 2.0, 1.5
    velocity, kept, wanted = None, [], x
    for i in range(10):
        slope = rate * wanted
        if form == "ghvb":
            velocity = slope if velocity is None else (1 - beta) * velocity + beta * slope
            kept = [velocity, *kept][:order]
            along = sum(w * k for w, k in zip(slope_weights(len(kept), beta), kept, strict=True))
        else:
            kept = [slope, *kept][:order]
            ab = sum(w * k for w, k in zip(slope_weights(len(kept), 1.0), kept, strict=True))
            velocity = ab if velocity is None else (1 - beta) * velocity + beta * ab
            along = velocity
        wanted += (EVEN[i + 1] - EVEN[i]) * along
    solver = Ghvb(order=order, beta=beta, form=form)
    assert end(solver, Linear(rate), np.array([x]), EVEN) == pytest.approx([wanted])


@pytest.mark.parametrize(("order", "form"), [(2, "hb"), (3, "hb"), (2, "ghvb"), (3, "ghvb")])
def test_momentum_enlarges_the_region_of_stability(order, form):
    """A slope so stiff that Adams-Bashforth diverges over 40 steps; with momentum it does not."""
    times = [1 - i / 40 for i in range(41)]
    rate = {2: 44.0, 3: 26.0}[order]
    plain = end(Ghvb(order=order, beta=1.0), Linear(rate), np.array([1.0]), times)
    calm = end(Ghvb(order=order, beta=0.6, form=form), Linear(rate), np.array([1.0]), times)
    assert abs(plain[0]) > 1 and abs(calm[0]) < 0.1


def test_a_start_without_signal_is_stepped_over():
    """Zero terminal SNR: sigma / alpha is infinite at t = 1."""
    import dataclasses

    path, _ = CASES["vp-v"]
    path = dataclasses.replace(path, alphas_cumprod=(*path.alphas_cumprod[:-1], 0.0))
    x = end(Ghvb(order=3), Gaussian(path, "v"), start(), EVEN)
    assert np.isfinite(x).all() and abs(x.mean() - 0.7) < 0.3
