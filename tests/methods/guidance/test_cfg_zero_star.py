"""CFG-Zero* against diffusers' guider, and its silent start."""

import pytest
import torch
from diffusers.guiders import ClassifierFreeZeroStarGuidance

from dit_tools.core.run import RunState
from dit_tools.methods.guidance.cfg_zero_star import CfgZeroStar
from dit_tools.methods.solvers.euler import Euler
from tests.support.branches import NUMPY_AND_TORCH, TIMES, Branches
from tests.support.gaussian import LINEAR


@pytest.mark.parametrize("scale", [0.0, 2.5, 8.0])
@pytest.mark.parametrize("zero_steps", [0, 1, 2])
def test_equals_diffusers_guider(scale, zero_steps):
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=scale, zero_init_steps=zero_steps)
    net = Branches()
    made = net.run(CfgZeroStar(scale=scale, zero_steps=zero_steps), TIMES)
    for i, (t, guided) in enumerate(zip(TIMES, made, strict=True)):
        guider._step = i
        wanted = guider.forward(net.raw("cond", t), net.raw("uncond", t)).pred
        assert torch.allclose(guided.raw, wanted, atol=1e-5)
    assert net.calls == [("cond",)] * zero_steps + [("cond", "uncond")] * (5 - zero_steps)


def test_scale_is_the_least_squares_one():
    net = Branches()
    (guided,) = net.run(CfgZeroStar(scale=0.0, zero_steps=0), [0.5])
    cond, uncond = net.raw("cond", 0.5).flatten(1), net.raw("uncond", 0.5).flatten(1)
    best = torch.stack(
        [torch.linalg.lstsq(u[:, None], c[:, None]).solution[0, 0] for c, u in zip(cond, uncond, strict=True)]
    )
    assert torch.allclose(guided.raw.flatten(1), best[:, None] * uncond, atol=1e-5)


@pytest.mark.parametrize("kind", ["flow", "eps", "x0"])
def test_silent_steps_leave_the_latents_alone(kind):
    net = Branches(kind)
    guide = CfgZeroStar(zero_steps=2).begin(RunState((1.0, 0.7, 0.4, 0.0), 3))
    steps = Euler().steps(lambda x, t: net.guided(guide, x, t), net.x, [1.0, 0.7, 0.4, 0.0], None)
    made = [step.x for step in steps]
    assert torch.equal(made[1], net.x) and not torch.equal(made[2], net.x)


def test_no_silence_on_a_variance_preserving_path():
    net = Branches("eps", LINEAR)
    one = net.run(CfgZeroStar(zero_steps=1), TIMES)
    two = net.run(CfgZeroStar(zero_steps=0), TIMES)
    assert all(torch.equal(a.raw, b.raw) for a, b in zip(one, two, strict=True))


def test_identity_is_the_condition_alone():
    net = Branches()
    made = net.run(CfgZeroStar(scale=1.0, zero_steps=0), TIMES)
    assert all(torch.equal(p.raw, net.raw("cond", t)) for p, t in zip(made, TIMES, strict=True))


def test_numpy_and_torch_agree():
    one, two = (Branches(to_array=convert).run(CfgZeroStar(), TIMES)[-1].raw for convert in NUMPY_AND_TORCH.values())
    assert one.dtype == "float32" and abs(one - two.numpy()).max() < 1e-5
