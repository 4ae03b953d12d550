"""LinearAG: when it asks, what it guesses, and that plain guidance is its limit."""

import numpy as np
import pytest
import torch

from dit_tools.methods.guidance.cfg import Cfg
from dit_tools.methods.guidance.linear_ag import LinearAg
from tests.support.branches import NUMPY_AND_TORCH, TIMES, Branches


class Related(Branches):
    """``uncond - cond`` is ``a d_asked + b (cond - cond_asked)`` per sample; asked: 0, then 1."""

    A, B = np.array([0.9, 0.5]), np.array([0.2, -0.3])

    def __init__(self, **options):
        super().__init__(shape=(2, 3, 4, 4), **options)
        random = np.random.default_rng(5)
        conds = random.standard_normal((len(TIMES), *self.shape))
        a, b = (w.reshape(2, 1, 1, 1) for w in (self.A, self.B))
        gaps = [random.standard_normal(self.shape)]
        for i, cond in enumerate(conds[1:]):
            asked = min(i, 1)
            gaps.append(a * gaps[asked] + b * (cond - conds[asked]))
        self.told = {t: (c, c + d) for t, c, d in zip(TIMES, conds, gaps, strict=True)}

    def raw(self, name, t):
        """The branch's array."""
        return self.to_array(self.told[t][name == "uncond"].astype("float64"))


@pytest.mark.parametrize(
    ("every", "asked"), [(1, [2, 2, 2, 2, 2]), (2, [2, 2, 1, 2, 1]), (3, [2, 2, 1, 1, 2]), (9, [2, 2, 1, 1, 1])]
)
def test_it_asks_every_nth_time_after_the_warmup(every, asked):
    net = Branches()
    net.run(LinearAg(every=every, warmup=2), TIMES)
    assert [len(names) for names in net.calls] == asked


def test_every_one_is_plain_guidance_bit_for_bit():
    ours, plain = (Branches().run(g, TIMES) for g in (LinearAg(every=1), Cfg()))
    assert all(torch.equal(a.raw, b.raw) for a, b in zip(ours, plain, strict=True))


def test_a_linear_relation_is_found_per_sample_and_guessed_exactly():
    net = Related()
    ours = net.run(LinearAg(scale=3.0, every=9, warmup=2, ridge=0.0), TIMES)
    assert [len(names) for names in net.calls] == [2, 2, 1, 1, 1]
    for got, wanted in zip(ours, Related().run(Cfg(scale=3.0), TIMES), strict=True):
        assert torch.allclose(got.raw, wanted.raw, atol=1e-9)


def test_a_strong_ridge_reuses_the_last_difference():
    net = Branches()
    made = net.run(LinearAg(scale=3.0, every=9, warmup=1, ridge=1e12), TIMES)
    gap = net.raw("uncond", TIMES[0]) - net.raw("cond", TIMES[0])
    for p, t in zip(made[1:], TIMES[1:], strict=True):
        assert torch.allclose(p.raw, net.raw("cond", t) - 2.0 * gap, atol=1e-5)


def test_weights_are_those_of_a_penalised_least_squares_fit():
    from dit_tools.methods.guidance.linear_ag import _Fit

    random = np.random.default_rng(1)
    first, second, gap0, gap1 = random.standard_normal((4, 1, 2, 3, 3))
    fit = _Fit(0.1)
    fit.learn(first, gap0)
    fit.learn(second, gap1)
    columns = np.stack([gap0.ravel(), (second - first).ravel()], 1)
    weight = 0.1 * (columns**2).sum() / 2
    rows = np.concatenate([columns, np.eye(2) * weight**0.5])
    right = np.concatenate([gap1.ravel(), [weight**0.5, 0]])
    a, b = np.linalg.lstsq(rows, right, rcond=None)[0]
    third = random.standard_normal((1, 2, 3, 3))
    assert fit.guess(third) == pytest.approx(a * gap1 + b * (third - second))


def test_numpy_and_torch_agree():
    runs = [Branches(to_array=c).run(LinearAg(), TIMES) for c in NUMPY_AND_TORCH.values()]
    for one, two in zip(*runs, strict=True):
        assert one.raw == pytest.approx(two.raw.numpy(), abs=1e-4)
