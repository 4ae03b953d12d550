"""Adaptive guidance: when the unconditional call stops, and what each sample gets."""

import numpy as np
import pytest
import torch

from dit_tools.methods.guidance.adaptive import Adaptive
from dit_tools.methods.guidance.cfg import Cfg
from tests.support.branches import NUMPY_AND_TORCH, TIMES, Branches


class Converging(Branches):
    """Branches whose noise predictions have a chosen cosine per time and sample."""

    def __init__(self, cosines, **options):
        super().__init__("eps", shape=(len(cosines[0]), 1, 2, 2), **options)
        self.cosines = dict(zip(TIMES, cosines, strict=True))

    def raw(self, name, t):
        """Unit vectors at the wanted angle, times something."""
        rows = []
        for cosine in self.cosines[t]:
            sine = (1 - cosine**2) ** 0.5
            rows.append([2.0, 0, 0, 0] if name == "cond" else [3 * cosine, 3 * sine, 0, 0])
        return self.to_array(np.array(rows, dtype="float32").reshape(self.shape))


def test_stops_asking_after_the_first_crossing():
    net = Converging([(0.9,), (0.98,), (0.995,), (0.5,), (0.6,)])
    made = net.run(Adaptive(scale=3.0), TIMES)
    assert [len(names) for names in net.calls] == [2, 2, 2, 1, 1]
    plain = net.run(Cfg(scale=3.0), TIMES)
    assert all(torch.equal(made[i].raw, plain[i].raw) for i in range(3))
    assert torch.equal(made[4].raw, net.raw("cond", TIMES[4]))


def test_every_sample_decides_for_itself():
    first, second = (0.9, 0.999, 0.5, 0.5, 0.5), (0.9, 0.9, 0.9, 0.999, 0.9)
    both = Converging(list(zip(first, second, strict=True)))
    made = both.run(Adaptive(scale=3.0), TIMES)
    assert [len(names) for names in both.calls] == [2, 2, 2, 2, 1]
    for row, cosines in enumerate((first, second)):
        alone = Converging([(cosine,) for cosine in cosines]).run(Adaptive(scale=3.0), TIMES)
        assert all(torch.equal(a.raw[row], b.raw[0]) for a, b in zip(made, alone, strict=True))


def test_patience():
    net = Converging([(0.999,), (0.5,), (0.999,), (0.999,), (0.9,)])
    net.run(Adaptive(patience=2), TIMES)
    assert [len(names) for names in net.calls] == [2, 2, 2, 2, 1]


def test_gamma_above_one_is_cfg_and_minus_one_stops_at_once():
    net = Branches()
    never, plain = net.run(Adaptive(gamma=1.5), TIMES), net.run(Cfg(), TIMES)
    assert all(torch.equal(a.raw, b.raw) for a, b in zip(never, plain, strict=True))
    other = Branches()
    other.run(Adaptive(gamma=-1.0), TIMES)
    assert [len(names) for names in other.calls] == [2, 1, 1, 1, 1]


def test_cosine_is_taken_between_noise_predictions():
    net = Branches("flow")
    cond, uncond = (net.predict(name, 0.8).eps.flatten(1) for name in ("cond", "uncond"))
    cosine = torch.cosine_similarity(cond, uncond).max().item()
    velocity = torch.cosine_similarity(net.raw("cond", 0.8).flatten(1), net.raw("uncond", 0.8).flatten(1)).max().item()
    assert abs(cosine - velocity) > 0.01
    below = Branches("flow")
    below.run(Adaptive(gamma=cosine + 1e-4), [0.8, 0.8])
    assert [len(names) for names in below.calls] == [2, 2]


def test_runs_share_no_memory():
    guidance, net = Adaptive(gamma=-1.0), Branches()
    for _ in range(2):
        net.run(guidance, TIMES[:2])
    assert [len(names) for names in net.calls] == [2, 1, 2, 1]


def test_scale_one_asks_for_the_condition_alone():
    net = Branches()
    net.run(Adaptive(scale=1.0), TIMES)
    assert net.calls == [("cond",)] * 5


def test_numpy_and_torch_agree():
    cosines = [(0.9, 0.999), (0.9, 0.9), (0.9, 0.9), (0.9, 0.999), (0.9, 0.9)]
    runs = [Converging(cosines, to_array=convert).run(Adaptive(), TIMES) for convert in NUMPY_AND_TORCH.values()]
    for one, two in zip(*runs, strict=True):
        assert one.raw == pytest.approx(two.raw.numpy(), abs=1e-6)
