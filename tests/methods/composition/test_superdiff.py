"""SuperDiff on Gaussians, whose densities are known: the estimate, either, both."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from dit_tools.core.branches import COND, UNCOND
from dit_tools.core.errors import UsageError
from dit_tools.core.paths import Flow
from dit_tools.core.plan import Plan
from dit_tools.core.prediction import Prediction
from dit_tools.core.steps import posterior_std
from dit_tools.methods.composition import SECOND, Stage
from dit_tools.methods.composition.superdiff import Superdiff, _Pair, gain, mean
from dit_tools.methods.guidance.cfg import Cfg
from dit_tools.methods.guidance.none import NoGuidance
from tests.support import gaussian

SPREAD = 0.3
PATHS = pytest.mark.parametrize("case", ["flow-flow", "vp-eps"])


class Expert:
    """An exact Gaussian as one expert; counts what is asked."""

    def __init__(self, case, mean):
        self.exact, self.asked = gaussian.Gaussian(*gaussian.CASES[case], mean, SPREAD), []

    def ask(self, branches, x, t):
        self.asked.append(tuple(branch.name for branch in branches))
        return tuple(self.exact(x, t) for _ in branches)


class Noise:
    def __init__(self, shape):
        self.random, self.shape = np.random.default_rng(5), shape

    def fresh(self):
        return self.random.standard_normal(self.shape)


def times_of(case, count):
    """From noise to data; on the flow with small steps near both ends."""
    if case == "vp-eps":
        return (1.0, *gaussian.vp_times(0.999, 0.01, count), 0.0)
    ramp = [(1 + np.cos(np.pi * i / count)) / 2 for i in range(count)]
    return (*ramp, 0.0)


def run(case, means, method, count=200, batch=256, shape=(1, 1, 1)):
    noise = Noise((batch, *shape))
    experts = tuple(Expert(case, mean) for mean in means)
    stage = Stage(experts, None, NoGuidance(), times_of(case, count), noise)
    *_, last = method.steps(stage, noise.fresh())
    return last.x, experts


def log_ratio(x, first, second):
    """``log q_a(x) - log q_b(x)`` of clean data."""
    return ((x - second) ** 2 - (x - first) ** 2).sum((1, 2, 3)) / (2 * SPREAD**2)


@PATHS
def test_the_estimate_along_a_path_is_the_log_ratio_of_the_densities(case):
    """Along paths of the first Gaussian; the error falls as the steps do."""
    errors = []
    for count in (100, 800):
        noise = Noise((512, 1, 1, 1))
        first, second = (gaussian.Gaussian(*gaussian.CASES[case], m, SPREAD) for m in (0.3, -0.3))
        x, lead = noise.fresh(), 0.0
        for t, s in pairwise(times_of(case, count)[:-1]):
            spread = posterior_std(first.path, t, s)
            one, two = first(x, t), second(x, t)
            x = mean(one, s, spread) + spread * noise.fresh()
            lead = lead + gain(one, two, x, s)
        alpha, end = first.path.alpha(s), first._spread(s)
        exact = ((x + 0.3 * alpha) ** 2 - (x - 0.3 * alpha) ** 2).sum((1, 2, 3)) / (2 * end**2)
        off = lead.reshape(-1) - exact
        errors.append(float(np.sqrt((off**2).mean())))
    assert errors[1] < 0.2 * errors[0]  # an eighth, were it exactly of order 1
    assert errors[1] < 0.03


@PATHS
def test_or_draws_from_both_and_never_from_between(case):
    x, _ = run(case, (1.5, -1.5), Superdiff(mode="or"))
    values = x.reshape(-1)
    assert 0.4 < (values > 0).mean() < 0.6
    assert (abs(values) > 0.5).mean() > 0.97
    assert abs(abs(values).mean() - 1.5) < 0.1


@PATHS
def test_and_ends_where_both_are_equally_likely(case):
    """Means 0.3 apart to either side: equal densities are at the middle, not at a mean."""
    x, _ = run(case, (0.3, -0.3), Superdiff(mode="and", margin=1e6), count=400)
    wrong, _ = run(case, (0.3, -0.3), Superdiff(mode="or"), count=400)
    gap = abs(log_ratio(x, 0.3, -0.3))
    assert np.median(gap) < 0.35 < np.median(abs(log_ratio(wrong, 0.3, -0.3)))
    assert abs(x.mean()) < 0.05


@PATHS
def test_a_bias_moves_or_to_one_side(case):
    first, _ = run(case, (1.5, -1.5), Superdiff(mode="or", bias=1e9))
    assert (first > 0.4).all()
    more, _ = run(case, (1.5, -1.5), Superdiff(mode="or", bias=3.0))
    assert (more > 0).mean() > 0.75


def test_one_model_with_two_prompts_makes_one_call_of_three_rows():
    expert = Expert("flow-flow", 0.3)
    cases = ((Cfg(scale=3.0), (COND, SECOND, UNCOND)), (NoGuidance(), (COND, SECOND)))
    for guidance, asked in cases:
        expert.asked.clear()
        noise = Noise((2, 1, 2, 2))
        stage = Stage((expert,), None, guidance, times_of("flow-flow", 4), noise)
        *_, last = Superdiff().steps(stage, noise.fresh())
        assert expert.asked == [tuple(branch.name for branch in asked)] * 4
        assert np.isfinite(last.x).all()  # equal predictions leave the weight open


def test_the_weight_of_and_makes_both_grow_alike():
    random = np.random.default_rng(0)
    x, first, second, guided, other, noise = random.standard_normal((6, 3, 2, 4, 4))
    pair = _Pair(*(Prediction(raw, "flow", x, 0.6, Flow()) for raw in (first, second, guided, other)))
    weight = Superdiff(margin=1e6)._both(pair, 0.5, 0.2, noise, 0.7)
    after = mean(pair.mixed(weight), 0.5, 0.2) + noise
    assert np.abs(gain(pair.first, pair.second, after, 0.5) - 0.7).max() < 1e-9
    limited = Superdiff(margin=0.0)._both(pair, 0.5, 0.2, noise, 0.7)
    assert ((limited >= 0) & (limited <= 1)).all()


def test_the_gain_is_the_papers_formula():
    """-(|d sigma|/sigma) |u|^2 - <dx, u>/sigma of x/alpha, for each model."""
    random = np.random.default_rng(1)
    x, after, first, second = random.standard_normal((4, 3, 2, 4, 4))
    t, s = 0.6, 0.5
    one, two = (Prediction(raw, "flow", x, t, Flow()) for raw in (first, second))
    sigma, low = t / (1 - t), s / (1 - s)
    dx = after / (1 - s) - x / (1 - t)
    logs = [
        -(sigma - low) / sigma * (p.eps**2).sum((1, 2, 3)) - (dx * p.eps).sum((1, 2, 3)) / sigma for p in (one, two)
    ]
    assert np.allclose(gain(one, two, after, s).reshape(-1), logs[0] - logs[1])


@pytest.mark.parametrize("guidance", ["apg", "cfg:rescale=0.5", "adaptive"])
def test_other_guidance_is_refused(guidance):
    specs = {
        "schedule": "uniform",
        "solver": "ddim:eta=1",
        "guidance": guidance,
        "noise": "philox",
        "cache": "none",
        "combine": "superdiff",
    }
    with pytest.raises(UsageError, match="--combine superdiff: --guidance .* use cfg"):
        Plan.parse(4, specs)
    assert Plan.parse(4, specs | {"guidance": "cfg:scale=7"}).combine == Superdiff()


def test_another_solver_is_refused():
    specs = {
        "schedule": "uniform",
        "solver": "euler",
        "guidance": "none",
        "noise": "philox",
        "cache": "none",
        "combine": "superdiff",
    }
    with pytest.raises(UsageError, match="--combine superdiff: --solver euler has no place in it"):
        Plan.parse(4, specs)


@pytest.mark.parametrize("mode", ["or", "and"])
def test_latents_keep_their_precision(mode):
    """A graph takes float32 and nothing else."""

    class Single(Noise):
        def fresh(self):
            return super().fresh().astype("float32")

    noise = Single((2, 1, 2, 2))
    stage = Stage((Expert("flow-flow", 0.3),), None, NoGuidance(), (1.0, 0.6, 0.3, 0.0), noise)
    for step in Superdiff(mode=mode).steps(stage, noise.fresh()):
        assert step.x.dtype == np.float32 and np.isfinite(step.x).all()
