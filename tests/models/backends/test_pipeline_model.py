"""Pipelines without an adapter run themselves, and say which options they cannot take."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dit_tools.core.errors import ExitCode, ModelError, UnsupportedError, UsageError
from dit_tools.core.plan import Plan
from dit_tools.core.size import Size
from dit_tools.models.backends.pipeline_model import PipelineModel, model_of
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.load import load
from tests.support import chroma, stable_diffusion

PIPELINES = {"stable-diffusion": stable_diffusion.pipeline, "chroma": chroma.pipeline}
DEFAULT = {"schedule": "native", "solver": "diffusers", "guidance": "cfg:scale=3.0", "noise": "philox", "cache": "none"}


def plan(steps: int = 3, **specs: str) -> Plan:
    return Plan.parse(steps, DEFAULT | specs)


def prompts(*texts: str, negative: str = "", side: int = 32, **options) -> ConditionRequest:
    return ConditionRequest(texts or ("a red apple",), (negative,) * max(len(texts), 1), Size.square(side), **options)


def runs(pipe, chosen: Plan | None = None, seeds=(5,), asked: ConditionRequest | None = None, **options):
    asked = asked or prompts(*["a red apple"] * len(seeds))
    pipeline = PipelineModel(pipe)
    return pipeline.pixels(asked, seeds, pipeline.accept(chosen or plan()), **options)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_picture_is_that_of_the_pipeline_itself(name):
    theirs = PIPELINES[name]()(
        "a red apple",
        height=32,
        width=32,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images
    ours = runs(PIPELINES[name]())
    assert ours.shape == (1, 3, 32, 32) and ours.dtype == np.float32
    assert abs(ours - theirs.transpose(0, 3, 1, 2)).max() == 0
    assert ours.std() > 0.01


@pytest.mark.parametrize("name", PIPELINES)
def test_each_picture_depends_on_its_own_seed(name):
    pipe = PIPELINES[name]()
    batch = runs(pipe, seeds=(5, 6))
    assert abs(batch[0] - batch[1]).max() > 0.01
    for row, seed in enumerate((5, 6)):
        assert abs(batch[row] - runs(pipe, seeds=(seed,))[0]).max() < 1e-4


@pytest.mark.parametrize("name", PIPELINES)
def test_options_reach_the_pipeline(name):
    pipe, seen = PIPELINES[name](), []
    first = runs(pipe)
    runs(pipe, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for other in (
        runs(pipe, plan(guidance="cfg:scale=9")),
        runs(pipe, plan(guidance="none")),
        runs(pipe, plan(steps=4)),
        runs(pipe, asked=prompts("blue night")),
        runs(pipe, asked=prompts(negative="blurry, low quality")),
    ):
        assert abs(other - first).max() > 1e-4
    assert runs(pipe, asked=prompts(side=64)).shape == (1, 3, 64, 64)


def test_another_scheduler_of_diffusers_is_taken_for_one_run():
    pipe = stable_diffusion.pipeline()
    first, own = runs(pipe), pipe.scheduler
    other = runs(pipe, plan(solver="diffusers:class=EulerAncestralDiscreteScheduler"))
    assert abs(other - first).max() > 1e-3
    assert pipe.scheduler is own
    assert (runs(pipe) == first).all()


@pytest.mark.parametrize(
    ("field", "spec", "option"),
    [
        ("cache", "taylorseer:interval=3", "--cache taylorseer:interval=3"),
        ("schedule", "karras", "--schedule karras"),
        ("solver", "heun", "--solver heun"),
        ("guidance", "apg", "--guidance apg"),
        ("guidance", "cfg:rescale=0.5", "--guidance cfg:rescale=0.5"),
    ],
)
def test_a_method_it_cannot_take_is_refused_in_one_line(field, spec, option):
    with pytest.raises(UnsupportedError) as caught:
        PipelineModel(stable_diffusion.pipeline()).accept(plan(**{field: spec}))
    text = str(caught.value)
    assert text.startswith(f"{option}: StableDiffusionPipeline ") and "\n" not in text
    assert caught.value.code == ExitCode.UNSUPPORTED


def test_a_scheduler_that_does_not_fit_is_refused():
    flow = PipelineModel(chroma.pipeline())
    with pytest.raises(UnsupportedError, match="DDIMScheduler: ChromaPipeline"):
        flow.accept(plan(solver="diffusers:class=DDIMScheduler"))
    flow.accept(plan(solver="diffusers:class=FlowMatchHeunDiscreteScheduler"))
    with pytest.raises(UsageError, match="no scheduler class 'Nothing'"):
        flow.accept(plan(solver="diffusers:class=Nothing"))


def test_the_plan_tells_the_noise_that_is_used():
    accepted = PipelineModel(chroma.pipeline()).accept(plan())
    assert accepted.specs() == DEFAULT | {"noise": "torch-cpu"}


def test_options_that_the_pipeline_does_not_know_are_refused():
    pipe = stable_diffusion.pipeline()
    for asked, option in (
        (prompts(embedded_guidance=3.5), "--embedded-guidance"),
        (prompts(max_tokens=7), "--max-tokens"),
    ):
        with pytest.raises(UnsupportedError, match=f"^{option}: StableDiffusionPipeline"):
            runs(pipe, asked=asked)


def test_what_the_pipeline_refuses_is_one_line():
    with pytest.raises(UnsupportedError, match="StableDiffusionPipeline.*divisible by 8") as caught:
        runs(stable_diffusion.pipeline(), asked=prompts(side=30))
    assert "\n" not in str(caught.value)


def test_pipelines_that_make_no_pictures_from_text_are_refused():
    class Upscaler:
        def __call__(self, prompt=None, *, image):
            return None

    class Songs:
        def __call__(self, prompt, num_inference_steps=5, generator=None, output_type="np"):
            return SimpleNamespace(audios=[0])

    class Unconditional:
        def __call__(self, batch_size=1):
            return None

    for kind, message in ((Upscaler, "needs image"), (Unconditional, "Unconditional makes no")):
        with pytest.raises(UnsupportedError, match=message):
            PipelineModel(kind())
    with pytest.raises(UnsupportedError, match="Songs makes no images"):
        runs(Songs())


def test_nan_is_a_model_error():
    pipe = stable_diffusion.pipeline()
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not numbers"):
        runs(pipe)


@pytest.mark.parametrize(("name", "size"), [("stable-diffusion", 32), ("chroma", 512)])
def test_a_folder_without_adapter_loads_as_such_a_model(name, size, tmp_path):
    PIPELINES[name](tmp_path / "model")
    model = load(str(tmp_path / "model"), device="cpu")
    assert model.pipeline.name == type(model.pipe).__name__
    assert (model.backend, model.device, model.dtype) == ("torch", "cpu", "float32")
    assert model.defaults.solver == "diffusers" and model.defaults.steps >= 28
    pixels = model.pipeline.pixels(prompts(), (5,), model.pipeline.accept(plan()))
    assert abs(pixels - runs(PIPELINES[name]())).max() < 1e-6
    with pytest.raises(UsageError, match="--width 33"):
        model.family.latent_shape(Size(32, 33))


def test_a_model_with_an_adapter_has_no_pipeline_of_its_own(tmp_path):
    from tests.support import sd3

    sd3.pipeline(tmp_path / "model")
    assert load(str(tmp_path / "model"), device="cpu").pipeline is None
    assert model_of(sd3.pipeline(), name="x", revision="0", device="cpu", dtype="float32").pipeline
