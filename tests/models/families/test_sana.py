"""Sana against its diffusers pipeline."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from dit_tools.core.errors import UsageError
from dit_tools.core.size import Size
from dit_tools.models.families.sana import instruction
from dit_tools.models.family import ConditionRequest
from tests.models.families import golden
from tests.support import sana

SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return sana.pipeline()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 4.5])
def test_golden(pipe: Any, batch: int, cfg: float) -> None:
    golden.compare(pipe, steps=4, cfg=cfg, negative="blurry", batch=batch, **SIZE)


def test_fewer_text_tokens(pipe: Any) -> None:
    golden.compare(pipe, steps=2, cfg=3.0, negative="blurry", batch=2, max_tokens=20, **SIZE)


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_integer_timesteps_of_other_step_counts(pipe: Any, steps: int) -> None:
    golden.compare(pipe, steps=steps, cfg=1.0, negative="", batch=1, height=32, width=64)


def test_flow_euler_scheduler(pipe: Any) -> None:
    """With its other scheduler timesteps are not rounded."""
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    try:
        golden.compare(pipe, steps=4, cfg=4.5, negative="", batch=1, **SIZE)
    finally:
        pipe.scheduler = DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        )


def test_instruction_stands_before_prompts_alone(pipe: Any, monkeypatch: Any) -> None:
    seen = []
    plain = pipe.tokenizer.__class__.__call__

    def spying(self: Any, text: Any, *rest: Any, **named: Any) -> Any:
        seen.append(text)
        return plain(self, text, *rest, **named)

    monkeypatch.setattr(pipe.tokenizer.__class__, "__call__", spying)
    golden.model_from(pipe).encode(ConditionRequest(("a cat",), ("bad",), Size.square(64)))
    lines = instruction(pipe)
    assert lines is not None
    assert lines[0].startswith("Given a user prompt")
    assert ["\n".join(lines) + "a cat"] in seen
    assert ["bad"] in seen


def test_defaults(pipe: Any) -> None:
    call = inspect.signature(pipe.__call__).parameters
    model = golden.model_from(pipe)
    assert model.defaults.steps == call["num_inference_steps"].default
    assert model.defaults.cfg == call["guidance_scale"].default
    assert model.defaults.size == 16 * 32  # sample_size 16: the 512 px model
    assert model.family.default_guidance == "cfg"
    assert model.defaults.solver == "dpmpp-2m"


@pytest.mark.parametrize(("height", "width", "option"), [(80, 96, "--height"), (64, 16, "--width")])
def test_sizes_that_the_pipeline_refuses(pipe: Any, height: int, width: int, option: str) -> None:
    with pytest.raises(ValueError, match="divisible by 32"):
        pipe("", height=height, width=width, use_resolution_binning=False)
    with pytest.raises(UsageError, match=f"{option} .*multiple of 32"):
        golden.model_from(pipe).family.latent_shape(Size(height, width))


def test_shape_tokens_and_time(pipe: Any) -> None:
    family = golden.model_from(pipe).family
    assert family.latent_shape(Size(64, 96)) == (4, 2, 3)
    assert family.tokens((1, 4, 2, 3)) == 6
    x = np.ones((2, 4, 2, 3), dtype=np.float32)
    assert family.timestep(x, 0.7509) == pytest.approx([375.0, 375.0])  # 750 of 750.9, times 0.5


def test_pictures_go_there_and_back(pipe: Any) -> None:
    """The deep-compression autoencoder has no posterior; its latents are scaled."""
    import torch

    codec = golden.model_from(pipe).codec
    pixels = np.random.default_rng(0).random((2, 3, 64, 96), dtype=np.float32)
    with torch.no_grad():
        expected = pipe.vae.encode(torch.as_tensor(pixels * 2 - 1)).latent * 0.41407
    assert torch.allclose(codec.encode(pixels), expected, atol=1e-6)
    assert codec.decode(codec.encode(pixels)).shape == pixels.shape
