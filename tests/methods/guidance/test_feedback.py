"""Dynamic guidance by feedback: what is chosen, when, and for whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction
from dit_tools.core.run import RunState
from dit_tools.methods.guidance.cfg import Cfg
from dit_tools.methods.guidance.feedback import FLOOR, Feedback, _rise, _standard, factors_of
from tests.support import small
from tests.support.branches import guided


class Likes:
    """Scores rise as the mean of x0 nears the wish of its row."""

    def __init__(self, *wishes):
        self.wishes, self.asked = wishes, 0

    def scores(self, x0):
        self.asked += 1
        return [-float(np.tanh(abs(row.mean() - w))) for row, w in zip(x0, self.wishes, strict=True)]


def seeing(scorer):
    """A run whose images are scored."""
    return RunState((1.0, 0.0), 1, scorer=scorer)


def evaluate(*branches):
    """cond says x0 = 1, uncond x0 = 0; both of one spread, at any scale of the difference."""
    x = np.zeros((2, 1, 4, 4))
    texture = np.tile([[1.0, -1.0]], (4, 2))
    made = {"cond": 1.0 + texture, "uncond": texture + x}
    return tuple(Prediction(made[b.name] + x, "x0", x, 0.5, Flow()) for b in branches)


def test_each_sample_gets_the_scale_that_its_critic_likes_best():
    """Guided x0 has the mean ``scale``, so a wish for 2 wants scale 2."""
    guide = Feedback(scale=2.0, factors="0.5+1+3").begin(seeing(Likes(2.0, 6.0)))
    made = guided(guide, evaluate, np.zeros((2, 1, 4, 4)), 0.5)
    assert made.raw.mean((1, 2, 3)).tolist() == [2.0, 6.0]


def test_a_choice_holds_for_every_evaluations():
    scorer = Likes(2.0, 2.0)
    guide = Feedback(scale=2.0, factors="0.5+1+3", every=3).begin(seeing(scorer))
    x, made = np.zeros((2, 1, 4, 4)), []
    for i in range(6):
        scorer.wishes = (1.0 if i == 1 else 2.0,) * 2 if i < 3 else (6.0, 1.0)
        made.append(guided(guide, evaluate, x, 0.5).raw.mean((1, 2, 3)).tolist())
    assert made == [[2.0, 2.0]] * 3 + [[6.0, 1.0]] * 3
    assert scorer.asked == 2 * 3  # two choices among three


def test_one_candidate_is_plain_guidance_bit_for_bit():
    model, given = small.pixart(), small.conditions()
    one, state = small.final(model, given, small.plan(guidance=Feedback(scale=3.7, factors="1")))
    plain, _ = small.final(model, given, small.plan(guidance=Cfg(scale=3.7)))
    assert torch.equal(one, plain)
    assert state.count["network calls"] == 10


def test_the_network_is_called_as_often_as_for_plain_guidance():
    _, state = small.final(small.pixart(), small.conditions(), small.plan(guidance=Feedback()))
    assert state.count["network calls"] == 10


def test_a_picture_does_not_depend_on_its_batch():
    model, chosen = small.pixart(), small.plan(guidance=Feedback())
    alone, _ = small.final(model, small.conditions(1), chosen, (3,))
    both, _ = small.final(model, small.conditions(2), chosen, (3, 4))
    assert torch.allclose(alone[0], both[0], atol=1e-5)


def test_weights_are_the_relative_rise_within_bounds():
    """alpha = (e_t - e_before) / e_before."""
    assert _rise(0.6, 0.5) == pytest.approx(0.2)
    assert _rise(0.4, 0.5) == FLOOR and _rise(5.0, 0.5) == 1.0
    standard = np.array(_standard((1.0, 2.0, 6.0)))
    assert standard.mean() == pytest.approx(0) and standard.std() == pytest.approx(1)
    assert _standard((2.0, 2.0)) == [0.0, 0.0]


@pytest.mark.parametrize("text", ["", "a", "1+", "-1", "inf", "nan", "+".join(["1"] * 65)])
def test_bad_factors_are_refused(text):
    with pytest.raises(UsageError, match="factors=.* is not valid; give for example"):
        factors_of(text)
    with pytest.raises(UsageError):
        Feedback(factors=text).begin(seeing(None))


def test_nobody_to_ask_is_told_with_the_remedy():
    with pytest.raises(UnsupportedError, match="--guidance feedback: only dit generate"):
        Feedback().begin(seeing(None))
