"""Residual guidance: calls, the virtual noise, and plain guidance as a limit."""

import pytest
import torch

from dit_tools.methods.guidance.cfg import Cfg
from dit_tools.methods.guidance.residual_cfg import ResidualCfg
from tests.support.branches import NUMPY_AND_TORCH, TIMES, Branches
from tests.support.gaussian import CASES

cases = pytest.mark.parametrize("case", CASES)


def branches(case):
    path, kind = CASES[case]
    return Branches(kind, path)


@pytest.mark.parametrize(
    ("options", "asked"),
    [({}, [2, 1, 1, 1, 1]), ({"mode": "self"}, [1] * 5), ({"refresh": 2}, [2, 1, 2, 1, 2]), ({"scale": 1.0}, [1] * 5)],
)
def test_calls(options, asked):
    net = Branches()
    net.run(ResidualCfg(**options), TIMES)
    assert [len(names) for names in net.calls] == asked


@cases
def test_refreshed_at_every_evaluation_it_is_plain_guidance(case):
    ours = branches(case).run(ResidualCfg(scale=3.0, refresh=1), TIMES[1:])
    plain = branches(case).run(Cfg(scale=3.0), TIMES[1:])
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.eps, b.eps, rtol=1e-3, atol=1e-3)


@cases
def test_it_is_guidance_with_the_virtual_noise_as_the_negative(case):
    """``n = (x - alpha x0) / sigma`` in noise space, with x0 of the first evaluation."""
    net = branches(case)
    made = net.run(ResidualCfg(scale=1.5), TIMES[1:])
    source = net.predict("uncond", TIMES[1]).x0
    for p, t in zip(made[1:], TIMES[2:], strict=True):
        virtual = (net.x - net.path.alpha(t) * source) / net.path.sigma(t)
        wanted = virtual + 1.5 * (net.predict("cond", t).eps - virtual)
        torch.testing.assert_close(p.eps, wanted, rtol=1e-3, atol=1e-3)


def test_self_mode_takes_the_noise_itself():
    net = Branches()
    (guided,) = net.run(ResidualCfg(scale=1.3, mode="self"), [0.5])
    noise = net.x / net.path.sigma(0.5)
    wanted = noise + 1.3 * (net.predict("cond", 0.5).eps - noise)
    torch.testing.assert_close(guided.eps, wanted, rtol=1e-5, atol=1e-5)
    assert [b.name for b in ResidualCfg(mode="self").branches] == ["cond"]


def test_numpy_and_torch_agree():
    runs = [Branches(to_array=c).run(ResidualCfg(), TIMES) for c in NUMPY_AND_TORCH.values()]
    for one, two in zip(*runs, strict=True):
        assert one.raw == pytest.approx(two.raw.numpy(), abs=1e-5)
