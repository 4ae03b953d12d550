"""Which images go through the network together: neighbours with the same model, plan and size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from dit_tools.jobs.expand import Job
from dit_tools.jobs.models import load_key
from dit_tools.jobs.settings import Settings

_PER_PICTURE = {
    "negative_prompt": "",
    "seed": "0",
    "num_images": None,
    "transparent": False,
    "background": None,
    "format": None,
    "quality": None,
}


def by_model(jobs: Sequence[Job]) -> list[Job]:
    """Jobs with those of one model together, otherwise in order, so that each loads once."""
    first: dict[Any, int] = {}
    for job in jobs:
        first.setdefault(load_key(job.settings), len(first))
    return sorted(jobs, key=lambda job: first[load_key(job.settings)])


def batches(jobs: Sequence[Job], size: int) -> Iterator[list[Job]]:
    """Groups of at most ``size`` neighbouring jobs that one sampling run can serve."""
    for _, group in itertools.groupby(by_model(jobs), key=lambda job: shared(job.settings)):
        members = list(group)
        for start in range(0, len(members), size):
            yield members[start : start + size]


def shared(settings: Settings) -> Settings:
    """The settings without what may differ within a batch."""
    return replace(settings, **_PER_PICTURE)
