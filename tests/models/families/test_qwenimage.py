"""Qwen-Image against its diffusers pipeline."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core.errors import UsageError
from dit_tools.core.size import Size
from dit_tools.models.families._shapes import pack, pad_texts, unpack
from dit_tools.models.family import ConditionRequest
from tests.models.families import golden
from tests.support import qwenimage, spies

SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return qwenimage.pipeline()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_golden(pipe: Any, batch: int, cfg: float) -> None:
    golden.compare(pipe, steps=4, cfg=cfg, negative="blurry", batch=batch, **SIZE)


def test_plain_guidance_is_not_the_pipeline(pipe: Any) -> None:
    """The norm of every token is kept, in tokens of 2x2 latents and no others."""
    asked = {"steps": 3, "cfg": 6.0, "negative": "", "batch": 1}
    for guidance in ("cfg:scale=6.0", "cfg:scale=6.0,norm=row"):
        with pytest.raises(AssertionError, match="latents differ"):
            golden.compare(pipe, **asked, **SIZE, guidance=guidance)


def test_fewer_text_tokens(pipe: Any) -> None:
    golden.compare(pipe, steps=2, cfg=3.0, negative="blurry", batch=3, max_tokens=60, **SIZE)


def test_defaults(pipe: Any) -> None:
    call = inspect.signature(pipe.__call__).parameters
    model = golden.model_from(pipe)
    assert model.defaults.steps == call["num_inference_steps"].default
    assert model.defaults.cfg == call["true_cfg_scale"].default
    assert model.defaults.size == pipe.default_sample_size * pipe.vae_scale_factor == 1024
    assert model.family.default_guidance == "cfg:norm=patch"
    assert model.defaults.solver == "euler"


@pytest.mark.parametrize(("height", "width", "option"), [(72, 96, "--height"), (64, 8, "--width")])
def test_sizes_that_the_pipeline_changes(
    pipe: Any, caplog: pytest.LogCaptureFixture, height: int, width: int, option: str
) -> None:
    """The pipeline warns and takes another size; we say which sizes there are."""
    caplog.set_level(logging.WARNING, logger="diffusers")  # loading a model elsewhere quiets it
    logging.getLogger("diffusers").addHandler(caplog.handler)
    pipe.check_inputs("", height, width)
    logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert "divisible by 16" in caplog.text
    with pytest.raises(UsageError, match=f"{option} .*multiple of 16"):
        golden.model_from(pipe).family.latent_shape(Size(height, width))


def test_tokens_are_those_of_the_shift(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spies.shift_tokens(pipe, monkeypatch)
    pipe("a", num_inference_steps=2, output_type="latent", **SIZE)
    family = golden.model_from(pipe).family
    assert seen == [family.tokens((1, *family.latent_shape(Size(**SIZE))))] == [24]


def test_branches_share_a_length(pipe: Any) -> None:
    """Texts of all branches are padded to the longest one; masks tell where they end."""
    model = golden.model_from(pipe)
    texts = ("a red apple", "a cat")
    made = model.encode(ConditionRequest(texts, ("", "a very long text to avoid, with more"), Size.square(64)))
    cond, uncond = made["cond"], made["uncond"]
    assert cond["encoder_hidden_states"].shape == uncond["encoder_hidden_states"].shape
    lengths = torch.cat([c["encoder_hidden_states_mask"].sum(1) for c in (cond, uncond)])
    assert lengths.max() == cond["encoder_hidden_states"].shape[1]
    assert len(set(lengths.tolist())) == 4
    states, mask = pipe.encode_prompt(list(texts))
    shown = states.shape[1]
    assert torch.equal(cond["encoder_hidden_states"][:, :shown], states)
    assert torch.equal(cond["encoder_hidden_states_mask"][:, :shown], mask.bool())
    assert not cond["encoder_hidden_states"][:, shown:].any()


def test_statistics_per_channel_and_one_frame(pipe: Any) -> None:
    family = golden.model_from(pipe).family
    x = torch.randn(2, 4, 2, 3)
    z = family.to_vae(x)
    assert z.shape == (2, 4, 1, 2, 3)
    for channel, (mean, deviation) in enumerate(
        zip(pipe.vae.config.latents_mean, pipe.vae.config.latents_std, strict=True)
    ):
        assert torch.allclose(z[:, channel, 0], x[:, channel] * deviation + mean)
    assert torch.allclose(family.from_vae(z), x, atol=1e-6)
    assert np.allclose(family.to_vae(x.numpy()), z.numpy())


def test_encoding_is_the_mode_of_the_posterior(pipe: Any) -> None:
    model = golden.model_from(pipe)
    pixels = np.random.default_rng(0).random((2, 3, 32, 48), dtype=np.float32)
    with torch.no_grad():
        video = torch.as_tensor(pixels)[:, :, None] * 2 - 1
        expected = pipe.vae.encode(video).latent_dist.mode()
    encoded = model.codec.encode(pixels)
    assert encoded.shape == (2, *model.family.latent_shape(Size(32, 48)))
    assert torch.allclose(model.family.to_vae(encoded), expected, atol=1e-5)
    assert model.codec.decode(encoded).shape == pixels.shape


def test_packing_is_the_pipelines(pipe: Any) -> None:
    x = torch.randn(2, 4, 6, 8)
    assert torch.equal(pack(x), pipe._pack_latents(x, 2, 4, 6, 8))


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_packing_round_trip(b: int, c: int, rows: int, columns: int, patch: int) -> None:
    x = np.arange(b * c * rows * columns * patch * patch, dtype=np.float32)
    x = x.reshape(b, c, rows * patch, columns * patch)
    tokens = pack(x, patch)
    assert tokens.shape == (b, rows * columns, c * patch * patch)
    assert (unpack(tokens, rows * patch, columns * patch, patch) == x).all()


def test_padding_keeps_texts() -> None:
    texts = {"cond": [torch.ones(2, 3), torch.ones(1, 3)], "uncond": [torch.full((4, 3), 2.0)]}
    made = pad_texts(texts)
    assert made["cond"][0].shape == (2, 4, 3)
    assert made["cond"][1].sum(1).tolist() == [2, 1]
    assert made["cond"][0].sum() == 9
    assert made["uncond"][1].all()
