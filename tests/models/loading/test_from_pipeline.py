"""The glue between pipelines and models."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.core.errors import UnsupportedError
from dit_tools.models.loading.from_pipeline import config, family_of, model_from_pipeline
from tests.support import dit, flux, pixart, sd3


@pytest.mark.parametrize(
    ("build", "family", "steps", "cfg", "size", "solver"),
    [
        (dit.pipeline, "dit", 50, 4.0, 32, "ddim"),
        (pixart.pipeline, "pixart", 20, 4.5, 32, "dpmpp-2m"),
        (pixart.alpha, "pixart", 20, 4.5, 512, "dpmpp-2m"),
        (sd3.pipeline, "sd3", 28, 7.0, 32, "euler"),
        (flux.pipeline, "flux", 28, 1.0, 512, "euler"),
    ],
)
def test_a_model_has_its_pipelines_parts_and_defaults(build, family, steps, cfg, size, solver):
    pipe = build()
    made = model_from_pipeline(pipe, name="n", revision="r", device="cpu", dtype="float32")
    d = made.defaults
    assert (made.family.name, d.steps, d.cfg, d.size) == (family, steps, cfg, size)
    assert d.solver.partition(":")[0] == solver
    assert (made.name, made.revision, made.backend) == ("n", "r", "torch")
    assert made.network.module is pipe.transformer
    assert made.codec.vae is pipe.vae
    assert made.pipe is pipe
    assert len(made.network.blocks()) in (3, 4)


def test_defaults_are_those_of_the_pipelines_calls():
    """Steps and scale are read from the pipelines here, so that a new diffusers shows up."""
    import inspect

    for build in (dit.pipeline, pixart.pipeline, pixart.alpha, sd3.pipeline, flux.pipeline):
        pipe = build()
        call, family = inspect.signature(pipe.__call__).parameters, family_of(pipe)
        scale = "true_cfg_scale" if "true_cfg_scale" in call else "guidance_scale"
        assert family.default_steps == call["num_inference_steps"].default
        assert family.default_cfg == call[scale].default


def test_embedded_guidance_is_that_of_the_pipelines_call():
    import inspect

    from dit_tools.models.families.flux import EMBEDDED_GUIDANCE

    call = inspect.signature(flux.pipeline().__call__).parameters
    assert call["guidance_scale"].default == EMBEDDED_GUIDANCE


def test_arrays_become_float32_tensors():
    made = model_from_pipeline(dit.pipeline(), name="n", revision="", device="cpu", dtype="float32")
    x = made.to_array(np.ones((1, 2), dtype=np.float64))
    assert (str(x.dtype), str(x.device)) == ("torch.float32", "cpu")


def test_a_scheduler_in_memory_knows_its_class():
    assert config(sd3.pipeline().scheduler)["_class_name"] == "FlowMatchEulerDiscreteScheduler"


def test_a_pipeline_without_a_family():
    class StableDiffusionPipeline:
        pass

    with pytest.raises(UnsupportedError, match="StableDiffusionPipeline has no adapter; choose"):
        family_of(StableDiffusionPipeline())
