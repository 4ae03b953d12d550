"""Stable Diffusion 3 against StableDiffusion3Pipeline."""

from __future__ import annotations

import pytest

from dit_tools.core.errors import UsageError
from dit_tools.core.plan import model_info
from dit_tools.core.size import Size
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.from_pipeline import family_of
from tests.models.families import golden
from tests.support import sd3


@pytest.fixture(scope="module")
def pipe():
    return sd3.pipeline()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 7.0])
def test_golden(pipe, cfg, batch):
    golden.compare(pipe, steps=5, cfg=cfg, negative="blurry", batch=batch, height=24, width=40, max_tokens=12)


def test_without_t5_golden():
    golden.compare(sd3.pipeline(t5=False), steps=4, cfg=4.0, negative="", batch=2, height=32, width=24)


def test_shift_by_token_count_golden():
    """SD 3.5 can shift by size; the tokens must be those that the pipeline counts."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=64, max_shift=1.16
    )
    golden.compare(
        sd3.pipeline(scheduler=scheduler), steps=4, cfg=3.0, negative="", batch=1, height=48, width=32, max_tokens=8
    )


def test_mu_is_that_of_the_pipeline(pipe):
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

    made = model_info(golden.model_from(pipe), (1, 4, 12, 8))
    assert made.tokens == (12 // 2) * (8 // 2)
    assert made.mu == pytest.approx(calculate_shift(24, 256, 4096, 0.5, 1.15))


def test_missing_t5_is_zeros():
    pipe = sd3.pipeline(t5=False)
    made = family_of(pipe).encode(pipe, ConditionRequest(("a cat",), ("",), Size.square(32)))
    for branch in ("cond", "uncond"):
        states = made[branch]["encoder_hidden_states"]
        assert states.shape == (1, 16 + 256, 24)  # CLIP's 16 tokens here, T5's 256
        assert (states[:, 16:] == 0).all()
        assert (states[:, :16] != 0).any()
        assert made[branch]["pooled_projections"].shape == (1, 8 + 12)


def test_branches_are_the_prompt_and_the_negative_prompt(pipe):
    family = family_of(pipe)
    made = family.encode(pipe, ConditionRequest(("a cat",), ("night",), Size.square(32), max_tokens=8))
    swapped = family.encode(pipe, ConditionRequest(("night",), ("a cat",), Size.square(32), max_tokens=8))
    for key in ("encoder_hidden_states", "pooled_projections"):
        assert (made["cond"][key] == swapped["uncond"][key]).all()
        assert (made["cond"][key] != swapped["cond"][key]).any()


@pytest.mark.parametrize(("height", "width", "option"), [(28, 32, "--height"), (32, 4, "--width")])
def test_sizes_that_the_pipeline_refuses(pipe, height, width, option):
    with pytest.raises(ValueError, match="divisible by 8"):
        pipe("a", height=height, width=width, num_inference_steps=1)
    with pytest.raises(UsageError, match=f"{option} .*not a multiple of 8"):
        family_of(pipe).latent_shape(Size(height, width))


def test_sizes_beyond_the_position_table(pipe):
    with pytest.raises(ValueError, match="cannot be greater than"):
        pipe("a", height=136, width=32, num_inference_steps=1)
    family = family_of(pipe)
    with pytest.raises(UsageError, match="--height 136: too large for this model; use 128"):
        family.latent_shape(Size(136, 32))
    with pytest.raises(UsageError, match="--width 136"):
        family.latent_shape(Size(32, 136))
    assert family.latent_shape(Size.square(128)) == (4, 32, 32)


def test_defaults(pipe):
    family = family_of(pipe)
    assert (family.default_steps, family.default_cfg, family.default_size) == (28, 7.0, 32)
    assert family.facts.solver == "euler"
