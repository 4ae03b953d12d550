"""``--compare``: the same images without the cache, timed and measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.jobs.expand import Job
from dit_tools.jobs.memory import Peak, measure_peak
from dit_tools.jobs.result import GeneratedImage, layers
from dit_tools.models.model import Model
from dit_tools.tasks.generate.sample_batch import sample_batch

WARMUP_STEPS = 2
ACCELERATIONS = {
    "cache": "caching",
    "attention": "sparse_attention",
    "tokens": "token_reduction",
    "combine": "composition",
}
"""Options that the plain run is without -> their categories."""
SECONDS = ("second_model", "second_prompt")


def check_comparison(jobs: Sequence[Job]) -> None:
    """Raise UsageError when an image has no acceleration, which leaves nothing to compare."""
    if any(_is_plain(job) for job in jobs):
        raise UsageError("--compare: an image without a cache", "give one, such as --cache fast")


def _is_plain(job: Job) -> bool:
    given = {category: getattr(job.settings, name) for name, category in ACCELERATIONS.items()}
    return all(spec.parse(category, text).info.name == "none" for category, text in given.items())


class Comparison:
    """Compares batches of one run; the plain run of a model's first batch is made twice.

    The cached run came first and paid for what a first run pays; so before the plain run is timed,
    both are run for a moment, and the cached run is timed again for the first batch.
    """

    def __init__(self) -> None:
        self._warm: set[int] = set()

    def of(self, model: Model, drawn: Sequence[GeneratedImage], peak: Peak) -> list[dict[str, Any]]:
        """What the record says of each image: plain seconds, speed-up, PSNR, SSIM, memory.

        On a model's first batch the seconds of ``drawn`` become those of a second run of it, and
        so does ``peak``, the memory that it took.
        """
        cached = [image.job for image in drawn]
        none = dict.fromkeys(ACCELERATIONS, "none") | dict.fromkeys(SECONDS)
        plain = [replace(job, settings=replace(job.settings, **none)) for job in cached]
        if id(model) not in self._warm:
            self._warm.add(id(model))
            sample_batch(model, [_shortened(job) for job in plain])
            with measure_peak(model.device) as peak:
                repeated = sample_batch(model, cached)
            for image, again in zip(drawn, repeated, strict=True):
                image.seconds = again.seconds
        with measure_peak(model.device) as before:
            references = sample_batch(model, plain)
        known = {"peak_mb": peak.mb, "plain_peak_mb": before.mb}
        known = {} if None in known.values() else known
        pairs = zip(drawn, references, strict=True)
        return [{**compare(*pair, model.alpha), **known} for pair in pairs]


def _shortened(job: Job) -> Job:
    return replace(job, settings=replace(job.settings, steps=WARMUP_STEPS))


def compare(drawn: GeneratedImage, plain: GeneratedImage, alpha: bool) -> dict[str, Any]:
    """Seconds of the plain run, speed-up, PSNR in dB and SSIM; see ``docs/schema``."""
    import math

    from dit_tools.methods.metrics.psnr import Psnr
    from dit_tools.methods.metrics.ssim import WINDOW, Ssim

    one, two = (layers(d, alpha).transpose(2, 0, 1)[None].clip(0, 1) for d in (drawn, plain))
    speedup = plain.seconds / max(drawn.seconds, 1e-9)
    found = {"seconds": round(plain.seconds, 3), "speedup": round(speedup, 3)}
    decibels = float(Psnr().of(one, two)[0])
    if math.isfinite(decibels):
        found["psnr"] = round(decibels, 2)
    if min(one.shape[2:]) >= WINDOW:
        found["ssim"] = round(float(Ssim().of(one, two)[0]), 4)
    return found
