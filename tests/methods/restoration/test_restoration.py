"""Every method finds images that fit both the measurement and the model, on a model known exactly.

The model is a mixture of Gaussians over 4 x 4 x 4 values, whose denoiser is exact; 24 of the 64
values are measured, without noise. Errors are means over 24 images and over values; those of an
ideal sampler and of the posterior's mean come from the mixture itself.
"""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.core import spec
from dit_tools.core.registry import get, names
from dit_tools.media.operators import Keep
from dit_tools.methods.restoration import Problem, renoised
from tests.support.gaussian import LINEAR
from tests.support.mixture import SHAPE, Mixture, Stream, uniform

EVERY = names("restoration")
PLAIN = {"ddnm": "ddnm:share=0", "flowchef": "flowchef:pull=0", "steered": "steered:start=0"}
IMAGES = 24


def problem(mixture: Mixture, seed: int, steps: int = 40) -> tuple[Problem, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.zeros(64)
    mask[rng.permutation(64)[:24]] = 1
    mask = mask.reshape(1, *SHAPE)
    truth = mixture.centres[[rng.integers(8)]] + 0.25 * rng.standard_normal((1, *SHAPE))
    made = Problem(
        Keep(mask), truth * mask, mixture, lambda x: x, lambda x: x, mixture.path, uniform(steps), Stream(100 + seed)
    )
    return made, truth


def errors(text: str, path=None, steps: int = 40) -> tuple[float, float]:
    """Mean squared error where it was measured, and where it was not."""
    seen, unseen = [], []
    for seed in range(IMAGES):
        made, truth = problem(Mixture(path), seed, steps)
        off = np.square(spec.parse("restoration", text).restore(made) - truth)
        mask = made.operator.mask.astype(bool)
        seen.append(off[mask].mean())
        unseen.append(off[~mask].mean())
    return float(np.mean(seen)), float(np.mean(unseen))


VARIANCE = 0.25**2  # of a mode: where the mode is known, what the mean misses; a sample misses twice that


@pytest.mark.parametrize("path", [None, LINEAR], ids=["flow", "vp"])
@pytest.mark.parametrize("name", EVERY)
def test_what_was_measured_and_what_was_not(name, path) -> None:
    text = {"red-diff": "red-diff:rate=0.1"}.get(name, name)
    seen, unseen = errors(text, path, 100 if name == "red-diff" else 40)
    plain = errors(PLAIN.get(name, "ddnm:share=0"), path)[1]
    assert seen < 0.02
    assert unseen < plain / 4, (unseen, plain)
    assert unseen < 4 * VARIANCE, unseen


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_without_its_pull_a_method_does_not_see_the_measurement(name) -> None:
    made, truth = problem(Mixture(), 0)
    other, _ = problem(Mixture(), 0)
    other.measured = -3 * truth
    method = spec.parse("restoration", PLAIN[name])
    assert (method.restore(made) == method.restore(other)).all()
    pulled = get("restoration", name)()
    made, other = problem(Mixture(), 0)[0], problem(Mixture(), 0)[0]
    other.measured = -3 * truth
    assert (pulled.restore(made) != pulled.restore(other)).any()


def test_flowchef_without_pull_is_euler() -> None:
    made, _ = problem(Mixture(), 1)
    x = Stream(101).fresh()
    for t, s in zip(made.times, made.times[1:], strict=False):
        x = x + (s - t) * made.denoise(x, t).velocity
    assert (spec.parse("restoration", "flowchef:pull=0").restore(made) == x).all()


def test_red_diff_without_a_prior_is_least_squares() -> None:
    made, truth = problem(Mixture(), 2, steps=200)
    found = spec.parse("restoration", "red-diff:prior=0").restore(made)
    mask = made.operator.mask
    assert abs((found - truth) * mask).max() < 0.02 and not (found * (1 - mask)).any()
    assert made.denoise.calls == 0


def test_ddnm_fits_the_measurement_at_the_end() -> None:
    made, truth = problem(Mixture(), 3)
    found = spec.parse("restoration", "ddnm").restore(made)
    assert abs((found - truth) * made.operator.mask).max() < 1e-9


def test_the_calls_of_the_network() -> None:
    for name, calls in (("ddnm", 40), ("flowchef", 40), ("red-diff", 40), ("steered:repeats=3,start=1", 120)):
        made, _ = problem(Mixture(), 0)
        spec.parse("restoration", name).restore(made)
        assert made.denoise.calls == calls, name


def test_what_fits_already_is_not_touched() -> None:
    made, truth = problem(Mixture(), 4)
    assert (made.corrected(truth) == truth).all()


@pytest.mark.parametrize("path", [None, LINEAR], ids=["flow", "vp"])
def test_fresh_noise_keeps_the_amount_of_noise(path) -> None:
    mixture = Mixture(path)
    x = 30 * Stream(1).fresh()
    p = mixture(x, 0.7)
    zero, kept = np.zeros_like(x), {}
    for eta in (0.0, 0.5, 1.0):
        only = renoised(mixture.path, p, zero, 0.7, 0.4, eta, lambda: zero)
        fresh = renoised(mixture.path, p, zero, 0.7, 0.4, eta, lambda: np.ones_like(x)) - only
        kept[eta] = (only / p.eps).mean() ** 2 + fresh.mean() ** 2
    assert all(value == pytest.approx(mixture.path.sigma(0.4) ** 2) for value in kept.values())
