"""Classifier-free guidance against diffusers' guider and against the pipelines' own lines."""

import pytest
import torch
from diffusers import QwenImagePipeline
from diffusers.guiders import ClassifierFreeGuidance

from dit_tools.core import spec
from dit_tools.methods.guidance.cfg import Cfg
from tests.support.branches import NUMPY_AND_TORCH, TIMES, Branches


@pytest.mark.parametrize("scale", [0.0, 1.5, 7.0])
@pytest.mark.parametrize("rescale", [0.0, 0.3, 1.0])
def test_equals_diffusers_guider(scale, rescale):
    guider = ClassifierFreeGuidance(guidance_scale=scale, guidance_rescale=rescale)
    net = Branches()
    for t, guided in zip(TIMES, net.run(Cfg(scale=scale, rescale=rescale), TIMES), strict=True):
        wanted = guider.forward(net.raw("cond", t), net.raw("uncond", t)).pred
        assert torch.allclose(guided.raw, wanted, atol=1e-5)


def test_scale_one_is_the_condition_alone_in_one_call():
    net = Branches()
    made = net.run(Cfg(scale=1.0, rescale=0.7, norm="row"), TIMES)
    assert all(torch.equal(p.raw, net.raw("cond", t)) for p, t in zip(made, TIMES, strict=True))
    assert net.calls == [("cond",)] * 5
    assert [b.name for b in Cfg(scale=1.0).branches] == ["cond"]
    assert [b.name for b in Cfg(scale=0.0).branches] == ["cond", "uncond"]


def test_scale_zero_is_the_unconditional():
    net = Branches()
    assert torch.equal(net.run(Cfg(scale=0.0), [0.5])[0].raw, net.raw("uncond", 0.5))


def test_interval_saves_the_unconditional_call_outside():
    net = Branches()
    guidance = spec.parse("guidance", "cfg:scale=3,interval=0.3..0.8")
    made = net.run(guidance, TIMES)
    assert [len(names) for names in net.calls] == [1, 2, 2, 2, 1]
    plain = Branches().run(Cfg(scale=3.0), TIMES)
    assert all(torch.equal(a.raw, b.raw) for a, b in zip(made[1:4], plain[1:4], strict=True))
    assert torch.equal(made[0].raw, net.raw("cond", 1.0))


def test_rescale_restores_the_standard_deviation_per_sample():
    (guided,) = (net := Branches()).run(Cfg(scale=9.0, rescale=1.0), [0.5])
    cond = net.raw("cond", 0.5)
    assert guided.raw.std(dim=(1, 2, 3)).tolist() == pytest.approx(cond.std(dim=(1, 2, 3)).tolist(), rel=1e-5)


def test_row_norm_is_lumina2s():
    (guided,) = (net := Branches()).run(Cfg(scale=5.0, norm="row"), [0.5])
    cond, uncond = net.raw("cond", 0.5), net.raw("uncond", 0.5)
    plain = uncond + 5.0 * (cond - uncond)
    wanted = plain * (cond.norm(dim=-1, keepdim=True) / plain.norm(dim=-1, keepdim=True))
    assert torch.allclose(guided.raw, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 6, 8), (2, 4, 1, 6, 8)])
def test_patch_norm_is_qwen_images(shape):
    (guided,) = (net := Branches(shape=shape)).run(Cfg(scale=5.0, norm="patch"), [0.5])

    def pack(x):
        return QwenImagePipeline._pack_latents(x, shape[0], shape[1], shape[-2], shape[-1])

    cond, uncond = pack(net.raw("cond", 0.5)), pack(net.raw("uncond", 0.5))
    plain = uncond + 5.0 * (cond - uncond)
    wanted = plain * (cond.norm(dim=-1, keepdim=True) / plain.norm(dim=-1, keepdim=True))
    assert torch.allclose(pack(guided.raw), wanted, atol=1e-5)


def test_sample_norm_only_shrinks():
    net = Branches()
    (large,) = net.run(Cfg(scale=5.0, norm="sample"), [0.5])
    sizes = net.raw("cond", 0.5).flatten(1).norm(dim=1)
    assert large.raw.flatten(1).norm(dim=1).tolist() == pytest.approx(sizes.tolist(), rel=1e-5)
    same = Branches().run(Cfg(scale=0.5, norm="sample"), [0.5])[0].raw
    assert torch.allclose(same, Branches().run(Cfg(scale=0.5), [0.5])[0].raw)


@pytest.mark.parametrize("text", ["cfg", "cfg:rescale=0.5", "cfg:norm=row", "cfg:norm=patch", "cfg:norm=sample"])
def test_numpy_and_torch_agree(text):
    one, two = (
        Branches(to_array=convert).run(spec.parse("guidance", text), [0.5])[0].raw
        for convert in NUMPY_AND_TORCH.values()
    )
    assert one.dtype == "float32" and abs(one - two.numpy()).max() < 1e-5
