"""``--min-psnr``: the boldest setting of a cache whose image stays near the plain one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.jobs.expand import Job
from dit_tools.jobs.result import layers
from dit_tools.jobs.settings import Settings
from dit_tools.models.model import Model
from dit_tools.tasks.generate.batching import shared
from dit_tools.tasks.generate.sample_batch import prepare, sample_batch


def check_tunable(jobs: Sequence[Job]) -> None:
    """Raise UsageError where there is no cache to tune, or nothing about it that can be tuned."""
    for settings in dict.fromkeys(job.settings for job in jobs):
        if settings.min_psnr is None:
            continue
        name = spec.parse("caching", settings.cache).info.name
        if name == "none":
            message = f"--min-psnr {settings.min_psnr:g}: no cache to tune"
            raise UsageError(message, "give one, such as --cache output")
        if spec.parse("caching", settings.cache).dial is None:
            message = f"--min-psnr {settings.min_psnr:g}: --cache {name} has nothing to tune"
            raise UsageError(message, "use for example --cache taylorseer or output")


def largest_passing(values: Sequence[Any], measure: Callable[[Any], float], least: float) -> Any:
    """The last of ``values`` that measures at least ``least``, and its measure; None if none does.

    Values are in order of boldness, so that measures fall. Bisection: where they do not fall it
    still gives a value that was measured to pass.
    """
    low, high, best = 0, len(values), None
    while low < high:
        middle = (low + high) // 2
        found = measure(values[middle])
        if found >= least:
            low, best = middle + 1, (values[middle], found)
        else:
            high = middle
    return best


class Tuner:
    """Tunes the cache on the first image of each settings, and remembers it for the others."""

    def __init__(self) -> None:
        self._known: dict[Settings, tuple[str, dict[str, Any]]] = {}

    def of(self, model: Model, jobs: Sequence[Job]) -> tuple[list[Job], dict[str, Any]]:
        """The jobs with their cache tuned, and what the record says of it; both as they are, else.

        Raises what drawing an image raises.
        """
        if jobs[0].settings.min_psnr is None:
            return list(jobs), {}
        key = shared(jobs[0].settings)
        if key not in self._known:
            self._known[key] = _tuned(model, jobs[0])
        text, found = self._known[key]
        return [_with_cache(job, text) for job in jobs], {"tuned": found}


def _tuned(model: Model, job: Job) -> tuple[str, dict[str, Any]]:
    """The tuned spec, ``none`` where only the plain run is near enough, and what was found."""
    least = job.settings.min_psnr or 0.0
    cache = prepare(model, job)[0].cache
    (plain,) = sample_batch(model, [_with_cache(job, "none")])
    runs = 1

    def measure(value: Any) -> float:
        nonlocal runs
        runs += 1
        text = spec.format(replace(cache, **{cache.dial.field: value}))
        (drawn,) = sample_batch(model, [_with_cache(job, text)])
        return _psnr(layers(drawn, model.alpha), layers(plain, model.alpha))

    value, decibels = largest_passing(cache.dial.values, measure, least) or (None, math.inf)
    found: dict[str, Any] = {"min_psnr": least, "runs": runs}
    if math.isfinite(decibels):
        found["psnr"] = round(decibels, 2)
    if value is None:
        return "none", found
    return spec.format(replace(cache, **{cache.dial.field: value})), found


def _with_cache(job: Job, text: str) -> Job:
    return replace(job, settings=replace(job.settings, cache=text, calibration=None))


def _psnr(one: Any, two: Any) -> float:
    from dit_tools.methods.metrics.psnr import Psnr

    a, b = (pixels.transpose(2, 0, 1)[None].clip(0, 1) for pixels in (one, two))
    return float(Psnr().of(a, b)[0])
