"""PixArt-alpha and PixArt-Sigma against diffusers' pipelines."""

from __future__ import annotations

import pytest

from dit_tools.core.errors import UsageError
from dit_tools.core.size import Size
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.from_pipeline import family_of
from tests.models.families import golden
from tests.support import pixart


@pytest.fixture(scope="module")
def sigma():
    return pixart.pipeline()


@pytest.fixture(scope="module")
def alpha():
    return pixart.alpha()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 4.5])
def test_sigma_golden(sigma, cfg, batch):
    golden.compare(sigma, steps=5, cfg=cfg, negative="blurry", batch=batch, height=24, width=40, max_tokens=12)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 4.5])
def test_alpha_golden(alpha, cfg, batch):
    golden.compare(alpha, steps=4, cfg=cfg, negative="", batch=batch, height=40, width=24, max_tokens=12)


def test_text_lengths_are_those_of_the_pipelines(alpha, sigma):
    for pipe, length in ((alpha, 120), (sigma, 300)):
        made = family_of(pipe).encode(pipe, ConditionRequest(("a cat",), ("",), Size.square(32)))
        assert made["cond"]["encoder_hidden_states"].shape[1] == length
        assert made["uncond"]["encoder_attention_mask"].shape == (1, length)


def test_ddim_golden():
    from diffusers import DDIMScheduler

    pipe = pixart.pipeline(scheduler=DDIMScheduler(clip_sample=False))
    golden.compare(pipe, steps=4, cfg=3.0, negative="", batch=1, height=32, width=24, max_tokens=8)


def test_flow_matching_golden():
    """The built-in models: PixArt transformers of a flow, a token per latent, no variance."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0)
    pipe = pixart.pipeline(scheduler=scheduler, out_channels=4, patch_size=1)
    golden.compare(pipe, steps=6, cfg=4.0, negative="blurry", batch=2, height=32, width=24, max_tokens=8)


def test_captions_are_lowercased(sigma):
    family = family_of(sigma)
    asked = ConditionRequest((" A Red APPLE",), ("",), Size.square(32), ("cond",), max_tokens=8)
    plain = ConditionRequest(("a red apple",), ("",), Size.square(32), ("cond",), max_tokens=8)
    a, b = (family.encode(sigma, p)["cond"]["encoder_hidden_states"] for p in (asked, plain))
    assert (a == b).all()


def test_micro_conditions_of_alpha(alpha, sigma):
    family = family_of(alpha)
    made = family.encode(alpha, ConditionRequest(("a", "b"), ("", ""), Size(40, 24), max_tokens=8))
    for branch in ("cond", "uncond"):
        assert made[branch]["resolution"].tolist() == [[40, 24]] * 2
        assert made[branch]["aspect_ratio"][:, 0].tolist() == pytest.approx([40 / 24] * 2)
    inputs = family.inputs(golden.noise((2, 4, 10, 6)), 0.5, made["cond"])
    assert set(inputs["added_cond_kwargs"]) == {"resolution", "aspect_ratio"}
    assert not family_of(sigma).micro_conditions


def test_micro_conditions_follow_an_explicit_config():
    """PixArt-Sigma at 1024 px has 128 latents, as alpha, and says that it wants none."""
    pipe = pixart.pipeline(sample_size=128, use_additional_conditions=False)
    assert not family_of(pipe).micro_conditions


def test_only_the_asked_branches_are_encoded(sigma):
    made = family_of(sigma).encode(sigma, ConditionRequest(("a",), ("b",), Size.square(32), ("cond",), max_tokens=8))
    assert set(made) == {"cond"}


@pytest.mark.parametrize("size", [0, 20, 28, -8])
def test_sizes_of_half_a_patch_are_refused(sigma, size):
    family = family_of(sigma)
    with pytest.raises(UsageError, match=f"--height {size}: not a multiple of 8"):
        family.latent_shape(Size(size, 32))
    with pytest.raises(UsageError, match=f"--width {size}: not a multiple of 8"):
        family.latent_shape(Size(32, size))


def test_defaults(sigma, alpha):
    family = family_of(sigma)
    assert (family.default_steps, family.default_cfg, family.default_size) == (20, 4.5, 32)
    assert family_of(alpha).default_size == 128 * 4
    assert family.latent_shape(Size(24, 40)) == (4, 6, 10)
    assert family.tokens((4, 6, 10)) == 15
