"""Lumina2 against its diffusers pipeline."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from dit_tools.core.errors import UsageError
from dit_tools.core.size import Size
from tests.models.families import golden
from tests.support import lumina2, spies

SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return lumina2.pipeline()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_golden(pipe: Any, batch: int, cfg: float) -> None:
    golden.compare(pipe, steps=4, cfg=cfg, negative="blurry", batch=batch, **SIZE)


def test_plain_guidance_is_the_pipeline_without_normalization(pipe: Any) -> None:
    asked = {"steps": 3, "cfg": 6.0, "negative": "", "batch": 1, "guidance": "cfg:scale=6.0"}
    golden.compare(pipe, **asked, **SIZE, cfg_normalization=False)
    with pytest.raises(AssertionError, match="latents differ"):
        golden.compare(pipe, **asked, **SIZE)


def test_truncated_guidance_is_an_interval(pipe: Any) -> None:
    """``cfg_trunc_ratio=0.5`` guides the first two of four steps, at t = 1 and 0.947."""
    golden.compare(
        pipe,
        steps=4,
        cfg=4.0,
        negative="",
        batch=1,
        **SIZE,
        cfg_trunc_ratio=0.5,
        guidance="cfg:scale=4.0,norm=row,interval=0.9..1",
    )


def test_fewer_text_tokens(pipe: Any) -> None:
    golden.compare(pipe, steps=2, cfg=3.0, negative="blurry", batch=2, max_tokens=140, **SIZE)


def test_defaults(pipe: Any) -> None:
    call = inspect.signature(pipe.__call__).parameters
    model = golden.model_from(pipe)
    assert model.defaults.steps == call["num_inference_steps"].default
    assert model.defaults.cfg == call["guidance_scale"].default
    assert model.defaults.size == pipe.default_image_size
    assert call["cfg_normalization"].default is True
    assert model.family.default_guidance == "cfg:norm=row"
    assert model.defaults.solver == "euler"


@pytest.mark.parametrize(("height", "width", "option"), [(72, 96, "--height"), (64, 8, "--width")])
def test_sizes_that_the_pipeline_refuses(pipe: Any, height: int, width: int, option: str) -> None:
    with pytest.raises(ValueError, match="divisible"):
        pipe("", height=height, width=width)
    with pytest.raises(UsageError, match=f"{option} .*16"):
        golden.model_from(pipe).family.latent_shape(Size(height, width))


def test_tokens_are_those_of_the_shift(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline gives its shift the number of channels, whatever the size of the image."""
    seen = spies.shift_tokens(pipe, monkeypatch)
    pipe("a", num_inference_steps=1, output_type="latent", guidance_scale=1.0, **SIZE)
    family = golden.model_from(pipe).family
    assert seen == [family.tokens((1, *family.latent_shape(Size(**SIZE))))] == [4]


def test_time_and_sign(pipe: Any) -> None:
    """The network is told 1 - t and says x0 - noise."""
    family = golden.model_from(pipe).family
    x = np.ones((2, 4, 2, 2), dtype=np.float32)
    assert family.timestep(x, 0.25) == pytest.approx([0.75, 0.75])
    assert (family.read(2 * x, x, 0.25).velocity == -2 * x).all()
