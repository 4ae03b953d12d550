"""Heun's method: the textbook step, and its ends."""

import numpy as np
import pytest

from dit_tools.core.paths import VP, Flow
from dit_tools.methods.solvers.heun import Heun
from tests.support.gaussian import LINEAR, Gaussian, end, start


def test_step_on_a_flow_is_the_trapezoid():
    data, x = Gaussian(Flow(), "flow"), start()
    slope = data(x, 0.9).raw
    ahead = x - 0.3 * slope
    wanted = x - 0.3 * (slope + data(ahead, 0.6).raw) / 2
    assert end(Heun(), data, x, [0.9, 0.6]) == pytest.approx(wanted, abs=1e-12)


def test_step_on_a_variance_preserving_path_is_the_papers():
    """Alg. 1 in its own variables: x / alpha over the noise level sigma / alpha, slope eps."""
    data, x, t, s = Gaussian(LINEAR, "eps"), start(), 0.8, 0.5
    levels = [LINEAR.sigma(time) / LINEAR.alpha(time) for time in (t, s)]
    slope, scaled = data(x, t).raw, x / LINEAR.alpha(t)
    ahead = scaled + (levels[1] - levels[0]) * slope
    other = data(LINEAR.alpha(s) * ahead, s).raw
    wanted = LINEAR.alpha(s) * (scaled + (levels[1] - levels[0]) * (slope + other) / 2)
    assert end(Heun(), data, x, [t, s]) == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize("kind", ["flow", "eps", "x0"])
def test_the_network_is_never_asked_at_zero_noise(kind):
    data = Gaussian(Flow(), kind)
    assert np.isfinite(end(Heun(), data, start(), [1.0, 0.5, 0.0])).all()
    assert data.asked == [1.0, 0.5, 0.5]


def test_start_without_signal():
    table = (*LINEAR.alphas_cumprod[:-1], 0.0)
    assert np.isfinite(end(Heun(), Gaussian(VP(table), "v"), start(), [1.0, 0.5, 0.0])).all()
