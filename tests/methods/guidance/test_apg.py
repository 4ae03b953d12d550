"""Adaptive projected guidance against diffusers' guider in the space of clean predictions."""

import numpy as np
import pytest
import torch
from diffusers.guiders import AdaptiveProjectedGuidance

from dit_tools.methods.guidance.apg import Apg
from dit_tools.methods.guidance.cfg import Cfg
from tests.support.branches import NUMPY_AND_TORCH, TIMES, Branches


def diffusers_run(net, scale, eta, threshold, momentum):
    """The guider with the paper's form, cond + (scale - 1) update, on x0 predictions."""
    guider = AdaptiveProjectedGuidance(
        guidance_scale=scale - 1,
        adaptive_projected_guidance_momentum=momentum,
        eta=eta,
        adaptive_projected_guidance_rescale=threshold,
        use_original_formulation=True,
    )
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

    guider.momentum_buffer = MomentumBuffer(momentum)
    return [guider.forward(net.predict("cond", t).x0, net.predict("uncond", t).x0).pred for t in TIMES]


@pytest.mark.parametrize("kind", ["x0", "flow"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(("threshold", "momentum"), [(15.0, -0.5), (2.5, 0.3), (0.0, 0.0)])
def test_equals_diffusers_guider(kind, eta, threshold, momentum):
    net = Branches(kind)
    guidance = Apg(scale=6.0, eta=eta, norm_threshold=threshold, momentum=momentum)
    for mine, theirs in zip(net.run(guidance, TIMES), diffusers_run(net, 6.0, eta, threshold, momentum), strict=True):
        assert torch.allclose(mine.x0, theirs, atol=1e-4)


def test_without_its_parts_it_is_cfg():
    plain = Apg(scale=3.0, eta=1.0, norm_threshold=0.0, momentum=0.0)
    for one, two in zip(Branches().run(plain, TIMES), Branches().run(Cfg(scale=3.0), TIMES), strict=True):
        assert torch.allclose(one.x0, two.x0, atol=1e-4)


def test_update_without_parallel_part_is_orthogonal_to_the_conditional():
    net = Branches("x0")
    (guided,) = net.run(Apg(scale=4.0, eta=0.0), [0.5])
    cond = net.raw("cond", 0.5)
    assert ((guided.x0 - cond) * cond).flatten(1).sum(1).tolist() == pytest.approx([0] * 3, abs=1e-3)


def test_scale_one_is_the_condition_alone():
    net = Branches()
    assert torch.equal(net.run(Apg(scale=1.0), [0.5])[0].raw, net.raw("cond", 0.5))
    assert net.calls == [("cond",)]


def test_runs_share_no_momentum():
    guidance, net = Apg(), Branches()
    first, second = net.run(guidance, TIMES), net.run(guidance, TIMES)
    assert all(torch.equal(a.x0, b.x0) for a, b in zip(first, second, strict=True))
    alone = net.run(guidance, TIMES[1:])
    assert not torch.allclose(alone[0].x0, first[1].x0)


def test_numpy_and_torch_agree():
    one, two = (Branches(to_array=convert).run(Apg(), TIMES)[-1].x0 for convert in NUMPY_AND_TORCH.values())
    assert one.dtype == np.float32 and abs(one - two.numpy()).max() < 1e-5
