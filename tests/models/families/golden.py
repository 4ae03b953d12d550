"""The golden test of a family: diffusers' own pipeline against ours, from the same start."""

from __future__ import annotations

import copy
import inspect
from typing import Any

from dit_tools.core.plan import Plan
from dit_tools.core.size import Size
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.from_pipeline import family_of, model_from_pipeline
from tests.support import loop

WORDS = ("a red apple", "a small cat on a table", "blue night", "flowers by the sea")
LATENTS, PIXELS = 1e-4, 1 / 255


def compare(
    pipe: Any,
    *,
    steps: int,
    cfg: float,
    negative: str,
    batch: int,
    height: int,
    width: int,
    guidance: str = "",
    embedded: float | None = None,
    max_tokens: int | None = None,
    **call: Any,
) -> None:
    """Run diffusers' pipeline and our path from one start and assert that they agree.

    Final latents: norm of the difference at most 1e-4 of the norm. Images: 1/255 everywhere.
    ``guidance`` replaces the family's ``default_guidance`` at scale ``cfg`` (``none`` for a ``cfg``
    of 1); ``embedded`` is our embedded guidance, ``max_tokens`` goes to both, ``call`` to the
    pipeline alone (it may override the arguments made here, such as ``guidance_scale``).
    """
    family = family_of(pipe)
    prompts = ConditionRequest(
        WORDS[:batch],
        (negative,) * batch,
        Size(height, width),
        ("cond", "uncond") if cfg > 1 else ("cond",),
        embedded,
        max_tokens,
    )
    spec = guidance or (scaled(family.default_guidance, cfg) if cfg > 1 else "none")
    start = noise((batch, *family.latent_shape(Size(height, width))))
    latents, pixels = ours(pipe, start, prompts, steps, spec)
    asked = arguments(pipe, prompts, start, steps, cfg, max_tokens) | call
    agree(pipe, latents, pixels, asked)


def agree(pipe: Any, latents: Any, pixels: Any, asked: dict[str, Any]) -> None:
    """Assert that the pipeline, called with ``asked``, gives these latents and pixels."""
    # Copies, because ZImagePipeline overwrites the list of prompts that it is given.
    theirs = pipe(**copy.deepcopy(asked), output_type="latent").images
    image = pipe(**copy.deepcopy(asked), output_type="np").images
    assert_close(packed(pipe, latents).reshape(theirs.shape), theirs, pixels, image)


def assert_close(latents: Any, theirs: Any, pixels: Any, picture: Any) -> None:
    """Assert latents within 1e-4 and pixels (B, 3, H, W) within 1/255 of (B, H, W, 3)."""
    assert bool(theirs.isfinite().all()), "diffusers gave NaN"
    error = float((latents - theirs).norm() / theirs.norm())
    assert error <= LATENTS, f"latents differ by {error:.2e}"
    apart = abs(pixels.transpose(0, 2, 3, 1) - picture).max()
    assert apart <= PIXELS, f"pixels differ by {apart:.2e}"
    assert picture.std() > 0.01, "the tiny model draws nothing, so the test proves nothing"


def model_from(pipe: Any) -> Any:
    """The Model of a test pipeline."""
    return model_from_pipeline(pipe, name="tiny", revision="0", device="cpu", dtype="float32")


def scaled(guidance: str, scale: float) -> str:
    """A guidance spec with its scale."""
    return f"{guidance}{',' if ':' in guidance else ':'}scale={scale}"


def noise(shape: tuple[int, ...], seed: int = 7) -> Any:
    """Starting noise."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ours(pipe: Any, start: Any, prompts: ConditionRequest, steps: int, guidance: str) -> tuple[Any, Any]:
    """Final latents (B, C, [F,] h, w) and pixels (B, 3, H, W) of our path."""
    model = model_from(pipe)
    specs = {
        "schedule": "native",
        "solver": model.family.facts.solver,
        "guidance": guidance,
        "noise": "philox",
        "cache": "none",
    }
    plan = Plan.parse(steps, specs)
    *_, last = loop.sample(model, model.encode(prompts), start, plan)
    return last.x, model.codec.decode(last.x)


def arguments(
    pipe: Any, prompts: ConditionRequest, start: Any, steps: int, cfg: float, max_tokens: int | None
) -> dict[str, Any]:
    """Keyword arguments with which a text-to-image pipeline does the same."""
    known = inspect.signature(pipe.__call__).parameters
    scale = "true_cfg_scale" if "true_cfg_scale" in known else "guidance_scale"
    made = {
        "prompt": list(prompts.texts),
        "latents": packed(pipe, start),
        scale: cfg,
        "height": prompts.size.height,
        "width": prompts.size.width,
        "num_inference_steps": steps,
    }
    if cfg > 1:
        made["negative_prompt"] = list(prompts.negatives)
    if max_tokens is not None:
        made["max_sequence_length"] = max_tokens
    for name in ("clean_caption", "use_resolution_binning"):
        if name in known:
            made[name] = False
    return made


def packed(pipe: Any, x: Any) -> Any:
    """Latents as the pipeline takes and gives them: packed tokens where it packs."""
    pack = getattr(pipe, "_pack_latents", None)
    return pack(x, x.shape[0], x.shape[1], x.shape[-2], x.shape[-1]) if pack else x
