"""One More Step: the brightness that a flawed schedule takes away, and the regression."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.core.paths import VP, Flow
from dit_tools.core.prediction import Prediction
from dit_tools.methods.noise.oms import Oms
from dit_tools.methods.solvers.ddim import Ddim
from dit_tools.models.one_more_step import FILE_NAME, MASK, STATES, OneMoreStep, fit_step, pooled, read_step, write_step

SHAPE = (1, 2, 2)
FLAWED = VP(tuple(np.cumprod(1 - np.linspace(1e-4, 0.012, 1000))))  # alpha_T = 0.05
SPREAD = 0.2


def condition(features):
    """Two tokens a row, the second of them padding."""
    states = np.stack([features, 100 + features], 1).astype("float32")
    return {STATES: states, MASK: np.tile([1, 0], (len(features), 1))}


def regression(count=400):
    """Images as bright as their one feature says, from -3 to 3."""
    random = np.random.default_rng(0)
    bright = np.linspace(-3, 3, count)[:, None]
    latents = bright[:, :, None, None] + SPREAD * random.standard_normal((count, *SHAPE))
    return fit_step(pooled(condition(bright)), latents, 1e-3)


def model(path=FLAWED, terminal=None):
    return SimpleNamespace(name="flawed", path=path, terminal=terminal or regression())


def sampled(x, mean):
    """The exact sampler of data around ``mean``, a number a row, on the flawed schedule."""
    mean = mean[:, None, None, None]

    def denoise(x, t):
        alpha, sigma = FLAWED.alpha(t), FLAWED.sigma(t)
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        x0 = mean + gain * (x - alpha * mean)
        return Prediction((x - alpha * x0) / sigma, "eps", x, t, FLAWED)

    times = [1 - i / 400 for i in range(400)] + [0.0]
    return list(Ddim().steps(denoise, x, times, None))[-1].x


def test_it_gives_the_brightness_back_that_pure_noise_takes():
    """All means are met only by starting where the model was trained to start."""
    wanted = np.tile([-3.0, 3.0], 200)
    noise = Oms().draw(SHAPE, list(range(400)))
    started = Oms().terminal(model(), {"cond": condition(wanted[:, None])}, noise)
    with_it = sampled(started, wanted).mean((1, 2, 3))
    without = sampled(noise, wanted).mean((1, 2, 3))
    assert abs(with_it - wanted).mean() < abs(without - wanted).mean()
    spread = with_it[1::2].mean() - with_it[::2].mean()
    assert spread == pytest.approx(6.0, rel=0.01)
    assert without[1::2].mean() - without[::2].mean() < spread - 0.03


def test_the_start_is_alpha_mean_plus_sigma_noise():
    noise = Oms().draw(SHAPE, [1, 2])
    given = {"cond": condition(np.array([[1.0], [2.0]])), "uncond": condition(np.array([[0.0], [0.0]]))}
    alpha, sigma = FLAWED.alpha(1.0), FLAWED.sigma(1.0)
    for method, bright in ((Oms(), (1, 2)), (Oms(scale=3.0), (3, 6)), (Oms(weight=0.5), (0.5, 1))):
        made = (method.terminal(model(), given, noise) - sigma * noise) / alpha
        assert np.allclose(made.mean((1, 2, 3)), bright, atol=0.05)


def test_weight_0_and_a_flow_change_no_bit():
    noise = Oms().draw(SHAPE, [1])
    assert Oms(weight=0.0).terminal(model(), {}, noise) is noise
    assert Oms().terminal(model(Flow(), None), {}, noise) is noise


def test_the_noise_is_that_of_philox():
    from dit_tools.methods.noise.philox import Philox

    assert np.array_equal(Oms().draw(SHAPE, [7, 8]), Philox().draw(SHAPE, [7, 8]))


def test_padding_does_not_count():
    assert np.allclose(pooled(condition(np.array([[2.0], [5.0]]))), [[2.0], [5.0]])


def test_a_file_is_read_as_it_was_written(tmp_path):
    made = regression()
    assert read_step(tmp_path) is None
    write_step(made, tmp_path)
    back = read_step(tmp_path)
    assert back is not None and back.shape == made.shape
    assert np.array_equal(back.weight, made.weight) and np.array_equal(back.bias, made.bias)


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError, match=FILE_NAME):
        read_step(tmp_path)
    write_step(OneMoreStep(np.ones((1, 4), "float32"), np.ones(3, "float32"), (1, 2, 2)), tmp_path)
    with pytest.raises(ModelError, match="do not fit each other"):
        read_step(tmp_path)


def test_what_cannot_be_is_refused_with_the_reason():
    given, noise = {"cond": condition(np.array([[1.0]]))}, Oms().draw(SHAPE, [1])
    bare = SimpleNamespace(name="bare", path=FLAWED, terminal=None)
    with pytest.raises(UnsupportedError, match="bare has no one_more_step.safetensors; make it"):
        Oms().terminal(bare, given, noise)
    with pytest.raises(UnsupportedError, match="made for latents of"):
        Oms().terminal(model(), given, Oms().draw((1, 4, 4), [1]))
    with pytest.raises(UnsupportedError, match="1 text features, not 2"):
        Oms().terminal(model(), {"cond": condition(np.ones((1, 2)))}, noise)
    with pytest.raises(UnsupportedError, match="no text states"):
        Oms().terminal(model(), {"cond": {"class_labels": np.array([1])}}, noise)
