"""Z-Image against its diffusers pipeline."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from dit_tools.core.errors import UsageError
from dit_tools.core.size import Size
from dit_tools.models.family import ConditionRequest
from tests.models.families import golden
from tests.support import spies, zimage

SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return zimage.pipeline()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 6.0])
def test_golden(pipe: Any, batch: int, cfg: float) -> None:
    """Our scale is the pipeline's ``guidance_scale`` plus 1."""
    golden.compare(pipe, steps=4, cfg=cfg, negative="blurry", batch=batch, guidance_scale=cfg - 1, **SIZE)


@pytest.mark.parametrize("batch", [1, 2])
def test_normalized_guidance(pipe: Any, batch: int) -> None:
    """``cfg_normalization=1`` limits the norm of a whole sample to the conditional's."""
    asked = {"steps": 3, "cfg": 4.0, "negative": "", "batch": batch, "guidance_scale": 3.0}
    asked |= {"guidance": "cfg:scale=4.0,norm=sample"}
    golden.compare(pipe, **asked, **SIZE, cfg_normalization=1.0)
    with pytest.raises(AssertionError, match="latents differ"):
        golden.compare(pipe, **asked, **SIZE)


def test_truncated_guidance_is_an_interval(pipe: Any) -> None:
    """``cfg_truncation=0.2`` guides while 1 - t <= 0.2."""
    golden.compare(
        pipe,
        steps=4,
        cfg=4.0,
        negative="",
        batch=1,
        **SIZE,
        guidance_scale=3.0,
        cfg_truncation=0.2,
        guidance="cfg:scale=4.0,interval=0.8..1",
    )


def test_fewer_text_tokens(pipe: Any) -> None:
    golden.compare(pipe, steps=2, cfg=3.0, negative="blurry", batch=2, max_tokens=9, guidance_scale=2.0, **SIZE)


def test_defaults(pipe: Any) -> None:
    call = inspect.signature(pipe.__call__).parameters
    model = golden.model_from(pipe)
    assert model.defaults.steps == call["num_inference_steps"].default
    assert model.defaults.cfg == call["guidance_scale"].default + 1
    assert call["cfg_normalization"].default is False
    assert call["cfg_truncation"].default == 1.0
    assert model.family.default_guidance == "cfg"
    assert model.defaults.size == 1024  # the pipeline's "height or 1024"
    assert model.defaults.solver == "euler"


@pytest.mark.parametrize(("height", "width", "option"), [(72, 96, "--height"), (64, 8, "--width")])
def test_sizes_that_the_pipeline_refuses(pipe: Any, height: int, width: int, option: str) -> None:
    with pytest.raises(ValueError, match="divisible by 16"):
        pipe("", height=height, width=width)
    with pytest.raises(UsageError, match=f"{option} .*multiple of 16"):
        golden.model_from(pipe).family.latent_shape(Size(height, width))


def test_tokens_are_those_of_the_shift(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spies.shift_tokens(pipe, monkeypatch)
    pipe(["a"], num_inference_steps=1, output_type="latent", guidance_scale=0.0, **SIZE)
    family = golden.model_from(pipe).family
    assert seen == [family.tokens((1, *family.latent_shape(Size(**SIZE))))] == [24]


def test_inputs_are_lists_of_true_lengths(pipe: Any) -> None:
    model = golden.model_from(pipe)
    texts = ["a red apple", "a cat on a table by the sea"]
    condition = model.encode(ConditionRequest(tuple(texts), ("", ""), Size(64, 96)))["cond"]
    expected, _ = pipe.encode_prompt(texts, do_classifier_free_guidance=False)
    made = model.family.inputs(torch.randn(2, 4, 8, 12), 0.5, condition)
    assert [image.shape for image in made["x"]] == [(4, 1, 8, 12)] * 2
    assert len(made["cap_feats"][0]) < len(made["cap_feats"][1])
    for text, other in zip(made["cap_feats"], expected, strict=True):
        assert torch.equal(text, other)


def test_time_and_sign(pipe: Any) -> None:
    """The network is told 1 - t and says x0 - noise."""
    family = golden.model_from(pipe).family
    x = np.ones((2, 4, 2, 2), dtype=np.float32)
    assert family.timestep(x, 0.25) == pytest.approx([0.75, 0.75])
    assert (family.read(2 * x[:, :, None], x, 0.25).velocity == -2 * x).all()
