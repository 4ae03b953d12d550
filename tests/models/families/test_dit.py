"""DiT against DiTPipeline, which takes no latents, gives none, and draws squares only."""

from __future__ import annotations

import pytest

from dit_tools.core.errors import UsageError
from dit_tools.core.size import Size
from dit_tools.models.families.dit import class_label
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.from_pipeline import family_of
from tests.models.families import golden
from tests.support import dit

NAMES = {"tench": 0, "Tinca tinca": 0, "goldfish": 1, "golden retriever": 207}
CLASSES = (207, 1, 999)


@pytest.fixture(scope="module")
def pipe():
    return dit.pipeline()


def check(pipe, monkeypatch, *, cfg, batch, steps=4, negatives=None):
    """Run both from one start, reading the pipeline's latents where it decodes them."""
    labels = [str(label) for label in CLASSES[:batch]]
    branches = ("cond", "uncond") if cfg > 1 else ("cond",)
    prompts = ConditionRequest(tuple(labels), negatives or ("",) * batch, Size.square(32), branches)
    start = golden.noise((batch, 4, 8, 8))
    guidance = f"cfg:scale={cfg}" if cfg > 1 else "none"
    latents, pixels = golden.ours(pipe, start, prompts, steps, guidance)
    theirs, image = run_pipeline(pipe, monkeypatch, start, cfg=cfg, steps=steps)
    golden.assert_close(latents, theirs, pixels, image)


def run_pipeline(pipe, monkeypatch, start, *, cfg, steps):
    """Final latents (B, C, h, w) and pixels (B, H, W, 3) of DiTPipeline from ``start``."""
    module = "diffusers.pipelines.dit.pipeline_dit.randn_tensor"
    decode, seen = pipe.vae.decode, []

    def spy(z):
        seen.append(z * pipe.vae.config.scaling_factor)
        return decode(z)

    monkeypatch.setattr(module, lambda **_: start.clone())
    monkeypatch.setattr(pipe.vae, "decode", spy)
    made = pipe(list(CLASSES[: len(start)]), guidance_scale=cfg, num_inference_steps=steps, output_type="np")
    monkeypatch.undo()
    return seen[0], made.images


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_ddim_golden(pipe, monkeypatch, cfg, batch):
    check(pipe, monkeypatch, cfg=cfg, batch=batch)


def test_dpm_solver_golden(monkeypatch):
    from diffusers import DPMSolverMultistepScheduler

    pipe = dit.pipeline(scheduler=DPMSolverMultistepScheduler())
    check(pipe, monkeypatch, cfg=4.0, batch=2, steps=6)


def test_ddim_with_clipping_golden(monkeypatch):
    from diffusers import DDIMScheduler

    pipe = dit.pipeline(scheduler=DDIMScheduler(clip_sample=True))
    check(pipe, monkeypatch, cfg=4.0, batch=1)


def test_learned_variance_is_dropped(pipe):
    family = family_of(pipe)
    x = golden.noise((2, 4, 8, 8))
    output = golden.noise((2, 8, 8, 8), seed=1)
    read = family.read(output, x, 0.5)
    assert read.kind == "eps"
    assert (read.raw == output[:, :4]).all()


def test_the_null_class_is_the_branch_without_a_condition(pipe):
    family = family_of(pipe)
    asked = ConditionRequest(("goldfish", "5"), ("", "golden retriever"), Size.square(32))
    made = family.encode(pipe, asked)
    assert made["cond"]["class_labels"].tolist() == [1, 5]
    assert made["uncond"]["class_labels"].tolist() == [1000, 207]


def test_labels_come_with_a_saved_pipeline(tmp_path):
    from diffusers import DiffusionPipeline

    dit.pipeline(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    made = family_of(loaded).encode(loaded, ConditionRequest(("Tinca tinca",), ("",), Size.square(32), ("cond",)))
    assert {branch: list(c) for branch, c in made.items()} == {"cond": ["class_labels"]}
    assert made["cond"]["class_labels"].tolist() == [0]
    with pytest.raises(UsageError, match="--negative-prompt 'goldfis': .*mean 'goldfish'"):
        family_of(loaded).encode(loaded, ConditionRequest(("1",), ("goldfis",), Size.square(32)))


@pytest.mark.parametrize(
    ("text", "label"),
    [("goldfish", 1), ("Golden Retriever", 207), (" 17 ", 17), ("0", 0), ("999", 999), ("tench, Tinca tinca", 0)],
)
def test_class_label(text, label):
    assert class_label(text, NAMES, 1000, "--prompt") == label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goldfisch", "did you mean 'goldfish'"),
        ("a red apple", "use a class number from 0 to 999"),
        ("1000", "use 0 to 999"),
        ("-1", "use 0 to 999"),
        ("", "use a class number"),
    ],
)
def test_unknown_class(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        class_label(text, NAMES, 1000, "--prompt")
    assert str(caught.value).startswith("--prompt")
    assert "\n" not in str(caught.value)


def test_a_model_without_names_takes_numbers():
    assert class_label("3", {}, 10, "--prompt") == 3
    with pytest.raises(UsageError, match="use a class number from 0 to 9"):
        class_label("goldfish", {}, 10, "--prompt")


@pytest.mark.parametrize(("height", "width", "option"), [(64, 32, "--height"), (32, 64, "--width")])
def test_only_the_models_own_size(pipe, height, width, option):
    with pytest.raises(UsageError, match=f"{option} 64.*use 32"):
        family_of(pipe).latent_shape(Size(height, width))


def test_the_transformer_reads_other_shapes_as_squares(pipe):
    """Why sizes other than the model's are refused."""
    zero = golden.noise((1,)).long() * 0
    output = pipe.transformer(golden.noise((1, 4, 16, 4)), zero, class_labels=zero).sample
    assert output.shape[-2:] == (8, 8)


def test_defaults(pipe):
    family = family_of(pipe)
    assert (family.default_steps, family.default_cfg, family.default_size) == (50, 4.0, 32)
    assert family.tokens((4, 8, 8)) == 16
