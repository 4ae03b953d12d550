"""From what the user typed to a session: the model is loaded, the plan is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.size import Size
from dit_tools.jobs.options import read_values
from dit_tools.jobs.settings import merge_settings, plan_of, size_of
from dit_tools.tasks.calibrate.calibration_run import CalibrationRun
from dit_tools.tasks.quantize.denoising_error import default_prompts

HELD_OUT_PROMPTS = 4  # prompts of the verdict
MAX_PROMPTS = 256  # prompts that go through the network together


def prompts_of(paths: Sequence[str]) -> tuple[str, ...]:
    """The prompts of files. Raises InputError for one that cannot be read."""
    from dit_tools.jobs.prompts import read_prompts

    return tuple(item.prompt for path in paths for item in read_prompts(path))


def start_calibration(
    values: Mapping[str, Any], asked: int | Sequence[str], rounds: int, seed: int, tell: Callable[[int, int], None]
) -> tuple[CalibrationRun, tuple[str, ...]]:
    """A session over ``asked`` prompts or so many of dit's own, and other prompts to judge by.

    Prompts of a file are split: the last quarter judges, and all of them where there are fewer
    than four. Raises UsageError for a cache without calibration and for too many prompts, and what
    loading a model raises.
    """
    from dit_tools.models.loading.load import LoadOptions, load
    from dit_tools.tasks.calibrate.run import check_cache

    settings = merge_settings([read_values(values)])
    needs = settings.needs()
    if settings.cache != "none":
        cache = settings.check().cache
        check_cache(cache)
        needs |= {"gradients"} if cache.info.name in ("harmonica", "ilf") else set()
    model = load(
        settings.model, LoadOptions(device=settings.device, dtype=settings.dtype, backend=settings.backend, needs=needs)
    )
    if model.pipeline is not None:
        raise UnsupportedError(
            f"--model {settings.model}: it has no adapter, and caches do not reach into it",
            "'dit models' lists what has one",
        )
    plan = plan_of(settings, model.defaults, model.family.default_guidance)
    prompts, judging = _split(model, asked)
    if len(prompts) > MAX_PROMPTS:
        raise UsageError(f"{len(prompts)} prompts: too many at once", f"give at most {MAX_PROMPTS}")
    size = size_of(settings, model.defaults.size)
    model.family.latent_shape(Size(*size))
    return CalibrationRun(model, plan, prompts, size, rounds, seed, tell), judging


def _split(model: Any, asked: int | Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if isinstance(asked, int):
        return default_prompts(model, asked), default_prompts(model, HELD_OUT_PROMPTS, skip=asked)
    prompts = tuple(asked)
    judging = max(len(prompts) // 4, 1)
    return (prompts[:-judging], prompts[-judging:]) if len(prompts) >= 4 else (prompts, prompts)
