"""The shipped model: both backends, plain diffusers, batches, files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from dit_tools.core.plan import Plan
from dit_tools.core.size import Size
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.load import load
from dit_tools.models.model import Model
from tests.support import loop

FOLDER = Path(__file__).parents[2] / "dit_tools/builtin/emoji"
GOLDEN = Path(__file__).parents[1] / "data/emoji-golden.png"
SIZE = 128
GOLDEN_PROMPTS = ("red heart", "cat face", "pizza", "flat yellow star")


@cache
def model(backend: str) -> Model:
    return load("emoji", backend=backend)


def pictures(loaded: Model, prompts: tuple[str, ...], seeds: list[int], **specs: str) -> np.ndarray:
    """Pixels (B, 4, SIZE, SIZE) with the model's defaults."""
    defaults = loaded.defaults
    plan = Plan.parse(
        defaults.steps,
        {
            "schedule": defaults.schedule,
            "solver": defaults.solver,
            "noise": "philox",
            "guidance": f"cfg:scale={defaults.cfg}",
            "cache": "none",
            **specs,
        },
    )
    blank = ("",) * len(prompts)
    conditions = loaded.encode(ConditionRequest(prompts, blank, Size.square(SIZE), ("cond", "uncond")))
    x, noise = loop.start(loaded, plan, loaded.family.latent_shape(Size.square(SIZE)), seeds)
    for step in loop.sample(loaded, conditions, x, plan, noise):
        x = step.x
    return loaded.codec.decode(x)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    mse = float(((a - b) ** 2).mean())
    return 10 * math.log10(1 / mse) if mse else math.inf


def test_torch_and_onnx_make_the_same_picture() -> None:
    prompts = ("red heart", "a green apple, flat", "a red apple and a green pear on a table under the yellow sun, 3d")
    onnx, torch = (pictures(model(b), prompts, [0, 5, 1]) for b in ("onnx", "torch"))
    for a, b in zip(onnx, torch, strict=True):  # the last one is longer than the model reads
        assert psnr(a, b) >= 40


def test_a_picture_depends_on_its_seed_and_not_on_its_batch() -> None:
    loaded = model("onnx")
    together = pictures(loaded, ("red heart", "a tree", "cat face"), [3, 4, 5])
    alone = pictures(loaded, ("a tree",), [4])
    assert np.array_equal(np.round(together[1:2] * 255), np.round(alone * 255))
    other = pictures(loaded, ("a tree",), [6])
    assert psnr(alone, other) < 40  # a model of few images: seeds change little, but they do


def test_prompts_matter() -> None:
    """Same seed, other words: another image; "red heart" is red, "book" is not a heart."""
    heart, book = pictures(model("onnx"), ("red heart", "book"), [0, 0])
    mean = (heart[:3] * heart[3]).reshape(3, -1).mean(1)
    assert mean[0] > 1.3 * mean[1] and mean[0] > 1.3 * mean[2]
    assert psnr(heart, book) < 15


def test_the_picture_is_what_plain_diffusers_makes() -> None:
    import torch
    from diffusers import DiffusionPipeline

    facts = json.loads((FOLDER / "dit.json").read_text(encoding="utf-8"))
    pipe = DiffusionPipeline.from_pretrained(FOLDER)
    pipe.set_progress_bar_config(disable=True)
    loaded = model("onnx")
    noise = np.random.Generator(np.random.Philox(2)).standard_normal((32, 8, 8), dtype="float32")
    theirs = pipe(
        "red heart",
        num_inference_steps=loaded.defaults.steps,
        guidance_scale=loaded.defaults.cfg,
        height=SIZE,
        width=SIZE,
        latents=torch.from_numpy(noise)[None],
        output_type="np",
        use_resolution_binning=False,
        max_sequence_length=facts["max_tokens"],
    ).images[0]
    ours = pictures(loaded, ("red heart",), [2])[0].transpose(1, 2, 0)
    assert np.abs(ours - theirs).max() < 1 / 255


def test_the_autoencoder_comes_back_to_the_picture() -> None:
    loaded = model("onnx")
    made = pictures(loaded, ("red heart",), [0])
    again = loaded.codec.decode(loaded.codec.encode(made))
    assert psnr(made, again) > 24


def test_the_files_are_what_dit_json_says_and_small_enough() -> None:
    facts = json.loads((FOLDER / "dit.json").read_text(encoding="utf-8"))
    for name, fact in facts["files"].items():
        content = (FOLDER / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == fact["sha256"], name
    shipped = [p for p in FOLDER.rglob("*") if p.is_file()]
    assert {p.relative_to(FOLDER).as_posix() for p in shipped} == {*facts["files"], "dit.json"}
    assert sum(p.stat().st_size for p in FOLDER.parent.rglob("*") if p.is_file()) < 100e6
    assert "MIT" in (FOLDER / "NOTICE.txt").read_text(encoding="utf-8")


def test_the_onnx_path_imports_no_torch() -> None:
    code = (
        "import sys; from tests.builtin.test_emoji import model, pictures;"
        "pictures(model('onnx'), ('red heart',), [0]);"
        "bad = {'torch', 'diffusers', 'transformers'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    root = str(FOLDER.parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr


def test_golden_pictures() -> None:
    """``DIT_REGENERATE=1`` rewrites them; look at the difference before it is committed."""
    from PIL import Image

    made = pictures(model("onnx"), GOLDEN_PROMPTS, [0, 1, 2, 3])
    strip = np.concatenate(list(made.transpose(0, 2, 3, 1)), axis=1)
    if os.environ.get("DIT_REGENERATE"):
        Image.fromarray(np.round(strip * 255).astype("uint8"), "RGBA").save(GOLDEN)
    golden = np.asarray(Image.open(GOLDEN)).astype("float32") / 255
    assert psnr(strip, golden) > 40


@pytest.mark.parametrize("spec", ["taylorseer:interval=3", "first-block:threshold=0.1"])
def test_caches_save_blocks_and_keep_the_picture(spec: str) -> None:
    plain = pictures(model("torch"), ("red heart",), [0])
    cached = pictures(model("torch"), ("red heart",), [0], cache=spec)
    assert not np.array_equal(plain, cached)
    assert psnr(plain, cached) > 15
