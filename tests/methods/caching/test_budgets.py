"""MagCache and SeaCache: what is added up while calls are skipped."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.paths import Flow
from dit_tools.core.run import RunState
from dit_tools.methods.caching.magcache import RatioDrift
from dit_tools.methods.caching.seacache import Spectral, apply_filter
from dit_tools.models.calibration import Calibration
from tests.support import small


@pytest.fixture(scope="module")
def model():
    return small.pixart()


def decisions(policy, calls: int) -> list[bool]:
    """What a policy says at every call, told of full calls as the stack tells it."""
    made, skipped = [], 0
    for call in range(calls):
        skip = policy.before(call, skipped, None)
        skipped = skipped + 1 if skip else 0
        if not skip:
            policy.learn(call, None, None)
        made.append(skip)
    return made


def test_growth_adds_up_the_distance_of_the_product_from_one():
    """Ratios 0.9: costs 0.1, 0.19, 0.271 since the last full call."""
    assert decisions(RatioDrift(0.1001, 0, ratios=[0.9] * 8), 6) == [True, False] * 3
    assert decisions(RatioDrift(0.3, 0, ratios=[0.9] * 8), 6) == [True, True, False] * 2
    assert decisions(RatioDrift(0.3, 1, ratios=[0.9] * 8), 4) == [True, False] * 2
    assert decisions(RatioDrift(0.05, 0, ratios=[0.9] * 8), 3) == [False] * 3


def test_ratios_that_undo_each_other_cost_little_and_calls_beyond_the_table_nothing():
    assert decisions(RatioDrift(0.25, 0, ratios=[1.2, 1 / 1.2]), 4) == [True] * 4
    assert decisions(RatioDrift(0.0, 0, ratios=[1.0] * 4), 3) == [False] * 3


def test_magcache_reads_the_ratios_of_its_branches(model):
    """Growth at calls 4 to 6 alone: those are computed, the others skipped."""
    ratios = np.ones(10, np.float32)
    ratios[4:7] = 3.0
    cache = spec.parse("caching", "magcache:retention=0.1,max_skips=0,threshold=0.5")
    run = RunState(tuple(1 - i / 10 for i in range(11)), 10, branches=("cond",))
    run.calibration = Calibration({}, {"ratio.cond": ratios})
    block, computed = model.network.blocks(), []
    inputs = model.family.inputs(torch.randn(1, 4, 8, 8), 0.9, small.conditions()["cond"])
    with cache.attach(block, run):
        for run.call in range(10):
            run.t = run.times[run.call]
            before = run.count["blocks computed"]
            model.network(**inputs)
            computed.append(run.count["blocks computed"] > before)
    assert computed == [True, False, False, False, True, True, True, False, False, True]


def test_magcache_equals_the_librarys_on_a_tiny_flux():
    from diffusers import MagCacheConfig

    from tests.methods.caching.test_against_diffusers import CALLS, make_flux, ours, theirs

    flux = make_flux()
    ratios = [1.0 - 0.02 * (call % 3) for call in range(CALLS)]
    reference = theirs(
        flux,
        MagCacheConfig(
            threshold=0.06, max_skip_steps=3, retention_ratio=0.2, num_inference_steps=CALLS, mag_ratios=ratios
        ),
    )
    known = Calibration({}, {"ratio.cond": np.array(ratios, np.float32)})
    made, run = ours(flux, "magcache", CALLS, known)
    assert run.count["blocks skipped"] > 2 * 5
    torch.testing.assert_close(
        torch.stack(made[:-1]), torch.stack(reference[:-1]), rtol=1e-5, atol=1e-5
    )  # the last call is always computed here


def test_the_filter_is_the_wiener_filter_of_a_falling_spectrum():
    """One frequency along one axis: multiplied by the gain of that frequency over the mean gain."""
    alpha, sigma, power, n = 0.6, 0.4, 2.0, 8
    wave = np.cos(2 * np.pi * np.arange(n) / n * 2)
    x = np.broadcast_to(wave, (1, 1, n, n)).astype("float32")

    def gain(f):
        signal = 1 / (abs(f) ** power + 1e-6)
        return alpha * signal / (alpha**2 * signal + sigma**2 + 1e-12)

    gains = np.array([gain(f) for f in np.fft.fftfreq(n)])
    expected = gain(2 / n) * gain(0.0) / gains.mean() ** 2
    np.testing.assert_allclose(apply_filter(x, alpha, sigma, power), x * expected, rtol=1e-4, atol=1e-5)
    theirs = apply_filter(torch.from_numpy(x.copy()), alpha, sigma, power)
    np.testing.assert_allclose(theirs.numpy(), x * expected, rtol=1e-4, atol=1e-5)


def test_without_noise_and_without_signal_the_filter_is_finite():
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype("float32")
    np.testing.assert_allclose(apply_filter(x, 1.0, 0.0, 2.0), x, atol=1e-3)
    assert np.isfinite(apply_filter(x, 0.0, 1.0, 2.0)).all()


def test_fine_noise_counts_less_than_coarse_structure_at_much_noise():
    run = RunState((1.0, 0.5, 0.0), 99, path=Flow())
    run.t = 0.8
    rough = np.indices((8, 8)).sum(0) % 2 * 2.0 - 1
    smooth = np.cos(2 * np.pi * np.arange(8) / 8) * np.ones((8, 1)) * 2**0.5
    costs = []
    for change in (rough, smooth):
        policy = Spectral(1.0, 0, run=run)
        run.x = base = np.ones((1, 1, 8, 8), "float32")
        policy.learn(0, None, None)
        run.x = base + 0.1 * change[None, None].astype("float32")
        costs.append(policy.cost(1, None))
    assert 0 < costs[0] < 0.5 * costs[1]


def test_seacache_adds_changes_up_and_ends_a_run_of_skips_at_the_threshold():
    run = RunState((1.0, 0.5, 0.0), 99, path=Flow())
    run.t, policy, made = 0.5, Spectral(0.25, 0, run=run), []
    for call in range(7):
        run.x = np.full((1, 1, 4, 4), 1.1**call, "float32")  # 10 % more at every call
        skip = call > 0 and policy.before(call, 0, None)
        if not skip:
            policy.learn(call, None, None)
        made.append(skip)
    assert made == [False, True, True, False, True, True, False]


def test_seacache_refuses_to_skip_what_it_cannot_measure():
    policy = Spectral(math.inf, 0, run=RunState((1.0, 0.0), 9, path=Flow()))
    policy.run.x = np.zeros((1, 1, 4, 4), "float32")
    policy.learn(0, None, None)
    assert not policy.before(1, 0, None)  # 0 / 0


@pytest.mark.parametrize("cache", ["seacache", "magcache:calibration=flat,retention=0"])
def test_bolder_thresholds_compute_less_and_err_more(model, cache):
    plain, _ = small.final(model, small.conditions(), small.plan("none", 16))
    errors, computed = [], []
    for threshold in (0.02, 5.0):
        joint = "," if ":" in cache else ":"
        text = f"{cache}{joint}threshold={threshold},max_skips=5"
        x, run = small.final(model, small.conditions(), small.plan(text, 16))
        errors.append(float((x - plain).abs().mean()))
        computed.append(run.count["blocks computed"])
    assert computed[1] <= computed[0] and errors[1] >= errors[0]
