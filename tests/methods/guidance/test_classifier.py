"""Classifier guidance: the formula, and the image-text model's gradient through a decoder."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dit_tools.core.errors import UnsupportedError
from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import RunState
from dit_tools.methods.guidance.cfg import Cfg
from dit_tools.methods.guidance.classifier import Classifier
from dit_tools.models.clip import clip64
from dit_tools.tasks.generate.scorer import CLASS_NAMES, LatentScorer
from tests.support import small
from tests.support.branches import guided


class Codec:
    """Latents (B, 3, 64, 64) are pixels in [-1, 1]."""

    def pixels(self, x):
        return x / 2 + 0.5

    def decode(self, x):
        return self.pixels(x).clamp(0, 1).numpy()


@pytest.fixture(scope="module")
def critic():
    return LatentScorer(SimpleNamespace(codec=Codec()), ["cat", "red apple"])


def pictures(seed=0):
    return 0.5 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_weight_0_is_plain_guidance_bit_for_bit():
    model, given = small.pixart(), small.conditions()
    off, _ = small.final(model, given, small.plan(guidance=Classifier(scale=3.0, weight=0.0)))
    plain, _ = small.final(model, given, small.plan(guidance=Cfg(scale=3.0)))
    assert torch.equal(off, plain)


@pytest.mark.parametrize("t", [1.0, 0.6, 0.1])
def test_the_clean_reading_moves_by_the_weighed_gradient(t):
    x = torch.randn(1, 4, 4, 4)
    said = {"cond": torch.randn(1, 4, 4, 4), "uncond": torch.randn(1, 4, 4, 4)}

    def evaluate(*branches):
        return tuple(Prediction(said[b.name], "flow", x, t, Flow()) for b in branches)

    taste = small.Taste()
    guide = Classifier(scale=2.0, weight=3.0, joint=8.0, gamma=0.3).begin(RunState((1.0, 0.0), 1, scorer=taste))
    x0 = x - t * (said["uncond"] + 2 * (said["cond"] - said["uncond"]))
    wanted = x0 + 3 * (t**2 + 0.3 * math.sin(math.pi * t)) * taste.gradient(x0, 8.0, 4.0)
    assert torch.allclose(guided(guide, evaluate, x, t).x0, wanted, atol=1e-5)


def test_scores_are_the_cosines_of_the_judge(critic):
    x0 = pictures()
    features = clip64().pictures(Codec().decode(x0))
    expected = (features * clip64().texts(["cat", "red apple"])).sum(1)
    assert np.allclose(critic.scores(x0), expected, atol=1e-6)


def test_the_gradient_is_that_of_the_calibrated_logit(critic):
    """Finite differences of ``joint f_y - log sum_c exp(marginal f_c)`` along a direction."""
    x0, joint, marginal = pictures().clamp(-0.9, 0.9), 10.0, 5.0
    texts, words = clip64().texts(["cat", "red apple"]), clip64().texts(CLASS_NAMES)

    def value(x):
        features = clip64().pictures(Codec().decode(x))
        own = (features * texts).sum(1, keepdims=True)
        every = np.concatenate([own, features @ words.T], 1)
        return joint * own[:, 0] - np.log(np.exp(marginal * every).sum(1))

    gradient = critic.gradient(x0, joint, marginal)
    assert gradient.shape == x0.shape and not x0.requires_grad
    step = 0.02 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    slope = (value(x0 + step) - value(x0 - step)) / 0.04
    assert np.allclose(slope, gradient.flatten(1).norm(dim=1), rtol=0.05)


def test_following_the_gradient_makes_the_judge_surer(critic):
    x0 = pictures()
    before = critic.scores(x0)
    for _ in range(10):
        gradient = critic.gradient(x0, 20.0, 10.0)
        x0 = x0 + gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    assert all(after > b + 0.2 for after, b in zip(critic.scores(x0), before, strict=True))


def test_rows_are_guided_each_for_itself(critic):
    x0 = pictures()
    alone = LatentScorer(SimpleNamespace(codec=Codec()), ["cat"])
    assert torch.allclose(alone.gradient(x0[:1], 20.0, 10.0), critic.gradient(x0, 20.0, 10.0)[:1], atol=1e-5)


def test_a_network_without_gradients_is_refused():
    model = small.pixart()
    model.network.offers = frozenset({"blocks"})
    with pytest.raises(UnsupportedError, match="--guidance classifier.*--backend torch"):
        small.final(model, small.conditions(), small.plan(guidance=Classifier()))
