"""Flux.1 against FluxPipeline: packing, embedded guidance, true guidance, shift by size."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.core.errors import UsageError
from dit_tools.core.plan import model_info
from dit_tools.core.size import Size
from dit_tools.models.families.flux import positions
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.from_pipeline import family_of
from tests.models.families import golden
from tests.support import flux


@pytest.fixture(scope="module")
def dev():
    return flux.pipeline()


@pytest.fixture(scope="module")
def schnell():
    return flux.pipeline(distilled=False)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_dev_golden(dev, cfg, batch):
    golden.compare(dev, steps=4, cfg=cfg, negative="blurry", batch=batch, height=24, width=40, max_tokens=12)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_schnell_golden(schnell, cfg):
    golden.compare(schnell, steps=3, cfg=cfg, negative="", batch=2, height=40, width=24, max_tokens=12)


def test_embedded_guidance_golden(dev):
    golden.compare(
        dev, steps=4, cfg=1.0, negative="", batch=2, height=32, width=24, max_tokens=8, embedded=9.0, guidance_scale=9.0
    )


def test_embedded_guidance_of_zero_is_not_the_default(dev):
    golden.compare(
        dev, steps=3, cfg=1.0, negative="", batch=1, height=32, width=24, max_tokens=8, embedded=0.0, guidance_scale=0.0
    )


def test_guidance_is_told_only_to_distilled_models(dev, schnell):
    asked = ConditionRequest(("a", "b"), ("", ""), Size.square(32), max_tokens=8)
    made = family_of(dev).encode(dev, asked)
    assert made["cond"]["guidance"].tolist() == made["uncond"]["guidance"].tolist() == [3.5, 3.5]
    assert "guidance" not in family_of(schnell).encode(schnell, asked)["cond"]


def test_text_length_is_that_of_the_pipeline(dev):
    made = family_of(dev).encode(dev, ConditionRequest(("a cat",), ("",), Size.square(32), ("cond",)))
    assert set(made) == {"cond"}
    assert made["cond"]["encoder_hidden_states"].shape == (1, 512, 24)
    assert made["cond"]["pooled_projections"].shape == (1, 12)


def test_inputs_are_packed_as_in_the_pipeline(dev):
    family = family_of(dev)
    x = golden.noise((2, 4, 6, 10))
    asked = ConditionRequest(("a", "b"), ("", ""), Size(24, 40), ("cond",), max_tokens=8)
    inputs = family.inputs(x, 0.25, family.encode(dev, asked)["cond"])
    assert (inputs["hidden_states"] == dev._pack_latents(x, 2, 4, 6, 10)).all()
    assert inputs["timestep"].tolist() == [0.25, 0.25]
    ids = dev._prepare_latent_image_ids(2, 3, 5, "cpu", x.dtype)
    assert (inputs["img_ids"] == ids).all()
    assert inputs["txt_ids"].tolist() == [[0, 0, 0]] * 8


def test_inputs_and_reading_are_the_same_in_numpy(dev):
    """ONNX Runtime gets the same arrays without torch."""
    family = family_of(dev)
    x = golden.noise((1, 4, 6, 10))
    condition = {"encoder_hidden_states": golden.noise((1, 8, 24)), "guidance": golden.noise((1,))}
    plain = {key: value.numpy() for key, value in condition.items()}
    torch_inputs = family.inputs(x, 0.5, condition)
    numpy_inputs = family.inputs(x.numpy(), 0.5, plain)
    assert torch_inputs.keys() == numpy_inputs.keys()
    for key, value in numpy_inputs.items():
        assert isinstance(value, np.ndarray)
        assert (value == torch_inputs[key].numpy()).all()
    output = golden.noise((1, 15, 16))
    read = family.read(output.numpy(), x.numpy(), 0.5)
    assert (read.raw == dev._unpack_latents(output, 24, 40, 4).numpy()).all()
    assert read.kind == "flow"


def test_positions_are_rows_then_columns():
    assert positions(2, 3, np.zeros(1, np.float32)).tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 0, 2],
        [0, 1, 0],
        [0, 1, 1],
        [0, 1, 2],
    ]


def test_mu_is_that_of_the_pipeline(dev):
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    made = model_info(golden.model_from(dev), (1, 4, 12, 8))
    assert made.tokens == 24
    assert made.mu == pytest.approx(calculate_shift(24, 256, 4096, 0.5, 1.15))
    assert made.passes_sigmas


@pytest.mark.parametrize(("height", "width", "option"), [(36, 32, "--height"), (32, 12, "--width")])
def test_sizes_that_the_pipeline_would_change(dev, height, width, option):
    with pytest.raises(UsageError, match=f"{option} .*not a multiple of 8"):
        family_of(dev).latent_shape(Size(height, width))


def test_defaults(dev):
    family = family_of(dev)
    assert (family.default_steps, family.default_cfg, family.default_size) == (28, 1.0, 512)
    assert family.latent_shape(Size(24, 40)) == (4, 6, 10)
