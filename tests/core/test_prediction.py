"""Readings of a prediction: exact on every path, for every kind, and back."""

import numpy as np
import pytest
import torch

from dit_tools.core.paths import Flow, scales
from dit_tools.core.prediction import KINDS, Prediction
from tests.support.gaussian import LINEAR, start

PATHS = {"flow": Flow(), "vp": LINEAR}
TIMES = (0.999, 0.7, 0.31, 0.002)


def made(path, kind, t, convert=np.asarray):
    """A prediction of known clean data and noise."""
    x0, eps = convert(start()), convert(start()[::-1].copy())
    alpha, sigma = path.alpha(t), path.sigma(t)
    raw = {"x0": x0, "eps": eps, "flow": eps - x0, "v": alpha * eps - sigma * x0}[kind]
    return x0, eps, Prediction(raw, kind, alpha * x0 + sigma * eps, t, path)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_readings(path, kind, t, convert):
    x0, eps, p = made(path, kind, t, convert)
    assert abs(p.x0 - x0).max() < 1e-9
    assert abs(p.eps - eps).max() < 1e-9
    assert abs(p.velocity - (eps - x0)).max() < 1e-9


@pytest.mark.parametrize(("kind", "reading"), [("x0", "x0"), ("eps", "eps"), ("flow", "velocity")])
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_native_reading_is_untouched(path, kind, reading):
    *_, p = made(path, kind, 0.37)
    assert getattr(p, reading) is p.raw


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_round_trip_through_clean_data(path, kind):
    x0, eps, p = made(path, kind, 0.6)
    again = p.with_x0(p.x0)
    assert again.kind == "x0" and again.x is p.x
    assert abs(again.eps - eps).max() < 1e-9
    assert abs(again.velocity - p.velocity).max() < 1e-9
    assert p.with_raw(p.raw * 2).kind == kind


def test_readings_that_do_not_exist_are_zero():
    x = start()
    assert (Prediction(x * 0.999, "eps", x, 1.0, Flow()).x0 == 0).all()
    assert (Prediction(x * 0.999, "x0", x, 0.0, Flow()).eps == 0).all()
    assert (Prediction(x, "flow", x, 1.0, Flow()).x0 == 0).all()  # x - 1 * raw, a real reading


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_batch_of_times_reads_as_each_time_alone(path, kind, convert):
    """Targets and readings of (B, ...) with a time for each sample, as training has them."""
    x0, noise = np.stack([start()] * 4), np.stack([start()[::-1].copy()] * 4)
    times = np.array([1.0, *TIMES[1:]])  # alpha is 0 at the first on the flow
    alpha, sigma = scales(path, convert(times), convert(x0))
    assert alpha.shape == sigma.shape == (4,) + (1,) * (x0.ndim - 1)
    x = alpha * convert(x0) + sigma * convert(noise)
    raw = Prediction.target(kind, convert(x0), convert(noise), path, convert(times))
    whole = Prediction(raw, kind, x, convert(times), path)
    for i, t in enumerate(times.tolist()):
        alone = Prediction(raw[i], kind, x[i], t, path)
        wanted = Prediction.target(kind, convert(x0[i]), convert(noise[i]), path, t)
        assert abs(raw[i] - wanted).max() < 1e-12
        for reading in ("x0", "eps", "velocity"):
            assert abs(getattr(whole, reading)[i] - getattr(alone, reading)).max() < 1e-9, (i, reading)
