"""One batch of images: encode prompts, draw noise, sample, decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dit_tools.core.errors import MemoryLimitError
from dit_tools.core.plan import Plan
from dit_tools.core.run import ImageTextScorer
from dit_tools.core.size import Size
from dit_tools.jobs.expand import Job
from dit_tools.jobs.result import GeneratedImage
from dit_tools.jobs.settings import check_offers, plan_of, size_of
from dit_tools.models.family import ConditionRequest
from dit_tools.models.model import Model
from dit_tools.sampling.images import image_steps
from dit_tools.sampling.sampler import Sampler

if TYPE_CHECKING:
    import numpy as np

Progress = Callable[[int, int], None]
"""Called after every step with the number of steps done and their total."""


def prepare(model: Model, job: Job) -> tuple[Plan, int, int, tuple[int, ...]]:
    """Plan, height and width in pixels, and latent shape (C, h, w) of a job on a model.

    Raises UsageError for a size that the model cannot make, UnsupportedError for methods or
    transparency that it does not offer.
    """
    settings = job.settings
    plan = plan_of(settings, model.defaults, model.family.default_guidance)
    height, width = size_of(settings, model.defaults.size)
    shape = model.family.latent_shape(Size(height, width))
    if model.pipeline is not None:
        plan = model.pipeline.accept(plan)
    plan.check(model)
    check_offers(settings, model)
    return plan, height, width, shape


def sample_batch(
    model: Model, jobs: Sequence[Job], progress: Progress | None = None, frames: bool = False
) -> list[GeneratedImage]:
    """The images of one batch, whose settings share model, plan and size.

    An image depends on its own seed and prompt, up to the rounding of batched arithmetic. Raises
    what ``prepare`` and ``sampling.sample`` raise, and MemoryLimitError when memory runs out.
    """
    began = time.perf_counter()
    kept: list[list[np.ndarray]] = [[] for _ in jobs]
    try:
        plan, height, width, _ = prepare(model, jobs[0])
        prompts, seeds = prompts_of(jobs, plan, height, width), [job.seed for job in jobs]
        if model.pipeline is not None:
            if frames:
                raise model.pipeline.refuse("--save-steps")
            pixels = model.pipeline.pixels(prompts, seeds, plan, progress)
        else:
            sampler = Sampler(model, plan, (height, width))
            sampler.state.scorer = _scorer(plan, model, prompts)
            x = None
            for step in image_steps(sampler, prompts, seeds):
                x = step.x
                if frames:
                    _keep(kept, model.codec.decode(step.prediction.x0))
                if progress is not None:
                    progress(step.index + 1, step.total)
            pixels = model.codec.decode(x)
    except Exception as error:
        if _is_memory(error):
            hint = "use a smaller --size or --batch-size, or --offload model"
            raise MemoryLimitError("out of memory", hint) from error
        raise
    seconds = (time.perf_counter() - began) / len(jobs)
    made = zip(jobs, pixels, kept, strict=True)
    return [GeneratedImage(job, p, plan, height, width, seconds, k) for job, p, k in made]


def prompts_of(jobs: Sequence[Job], plan: Plan, height: int, width: int) -> ConditionRequest:
    """What the text encoder is asked, one entry per image."""
    settings = jobs[0].settings
    return ConditionRequest(
        texts=tuple(job.prompt for job in jobs),
        negatives=tuple(job.settings.negative_prompt for job in jobs),
        size=Size(height, width),
        branches=tuple(branch.name for branch in plan.guidance.branches),
        embedded_guidance=settings.embedded_guidance,
        max_tokens=settings.max_tokens,
        second=None if settings.second_prompt is None else (settings.second_prompt,) * len(jobs),
    )


def _scorer(plan: Plan, model: Model, prompts: ConditionRequest) -> ImageTextScorer | None:
    """Who tells guidance that looks at images what they show."""
    if not plan.guidance.sees:
        return None
    from dit_tools.tasks.generate.scorer import LatentScorer

    return LatentScorer(model, prompts.texts)


def _keep(kept: list[list[np.ndarray]], pixels: np.ndarray) -> None:
    import numpy as np

    levels = np.rint(np.nan_to_num(pixels[:, :3]).clip(0, 1) * 255).astype(np.uint8)
    for frames, frame in zip(kept, levels, strict=True):
        frames.append(frame.transpose(1, 2, 0))  # (H, W, 3)


def _is_memory(error: Exception) -> bool:
    # torch.OutOfMemoryError and onnxruntime's failed allocations are RuntimeErrors of their own;
    # neither library may be imported here to name them.
    text = f"{type(error).__name__}: {error}"[:2000]
    marks = (
        "OutOfMemoryError",
        "Failed to allocate memory",
        "bad_alloc",
        "out of memory",
        "not enough memory",
        "can't allocate memory",
    )
    return isinstance(error, MemoryError) or any(mark in text for mark in marks)
