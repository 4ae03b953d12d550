"""SINE: the mixture of guidance, the copy that learns, and that it is gone afterwards."""

from __future__ import annotations

import pytest
import torch

from dit_tools.core.errors import UnsupportedError
from dit_tools.nn.low_rank import low_rank
from tests.support.scenes import half, of, scene_of


def test_without_mixture_it_is_plain_sampling_with_guidance():
    made = of("sine:mix=0,scale=3").edit(scene_of("pixart", "1", "2"))
    plain = of("img2img:strength=1").edit(scene_of("pixart", "1", "2", cfg_scale=3.0, solver="euler"))
    assert torch.allclose(made, plain, atol=1e-5)


def test_a_copy_that_learnt_nothing_has_no_effect():
    made = [of(f"sine:train=0,mix={mix},scale=3").edit(scene_of("pixart", "1", "1")) for mix in (0, 0.6, 1)]
    for other in made[1:]:
        assert (other - made[0]).abs().max() < 1e-5 * made[0].abs().max()


def test_the_guidance_is_that_of_equation_7():
    scene = scene_of("pixart", "1", "2")
    network, x = scene.session.model.network, scene.x0
    with low_rank(network.module, 2) as copy:
        for b in copy.factors[1::2]:
            b.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        found = of("sine:mix=0.6,scale=4")._mixed(scene, copy, x, 0.8).raw
        learnt = scene.ask("source", scale=1.0)(x, 0.8).raw
        copy.on = False
        plain = scene.ask("source", scale=1.0)(x, 0.8).raw
        target = scene.ask("target", scale=1.0)(x, 0.8).raw
        none = scene.prompted([""], 1.0)(x, 0.8).raw
    assert not torch.allclose(learnt, plain)
    expected = none + 4 * (0.4 * target + 0.6 * learnt - none)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("family", ["pixart", "sd3", "flux", "sana"])
def test_the_copy_learns_and_leaves_no_trace(family):
    scene = scene_of(family, "1", "2")
    module = scene.session.model.network.module
    before = scene.ask("source", scale=1.0)(scene.x0, 0.5).raw
    hooks = sum(len(m._forward_hooks) for m in module.modules())
    with low_rank(module, 4) as copy:
        losses = of("sine:train=40,rate=0.01").learn(scene, copy)
        assert copy.factors and not torch.equal(scene.ask("source", scale=1.0)(scene.x0, 0.5).raw, before)
    assert sum(losses[-10:]) < sum(losses[:10])
    assert torch.equal(scene.ask("source", scale=1.0)(scene.x0, 0.5).raw, before)
    assert sum(len(m._forward_hooks) for m in module.modules()) == hooks
    assert all(p.grad is None for p in module.parameters())


def test_the_edit_is_nearer_to_the_picture_that_was_learnt():
    distances = []
    for train in (0, 30):
        x0 = 0.5 * torch.ones(1, 32, 8, 8).sign()
        scene = scene_of("emoji-torch", "sks thing", "sks thing", x0=x0, steps=5)
        made = of(f"sine:mix=1,scale=1,until=0,train={train},rate=0.01").edit(scene)
        distances.append(float((made - x0).abs().mean()))
    assert distances[1] < 0.8 * distances[0]


def test_nothing_to_run_is_nothing_done_and_masks_hold():
    scene = scene_of("pixart", "1", "2", mask=half((8, 8)))
    assert of("sine:strength=0").edit(scene) is scene.x0
    made = of("sine:train=1").edit(scene)
    assert torch.equal(made[..., 4:], scene.x0[..., 4:])


def test_a_network_without_attention_is_refused():
    scene = scene_of("pixart", "1", "2")
    scene.session.model.network, kept = torch.nn.Module(), scene.session.model.network
    scene.session.model.network.module = torch.nn.Linear(2, 2)
    scene.session.model.network.offers = kept.offers
    try:
        with pytest.raises(UnsupportedError, match="no attention layers"):
            of("sine:train=1").edit(scene)
    finally:
        scene.session.model.network = kept
