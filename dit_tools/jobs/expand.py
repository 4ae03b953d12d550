"""From prompts, seeds and sweeps to jobs: one job is one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dit_tools.core.errors import DitError, InputError, UsageError
from dit_tools.jobs.options import read_values
from dit_tools.jobs.prompts import PromptItem
from dit_tools.jobs.seeds import MAX_SEED, parse_seeds
from dit_tools.jobs.settings import Settings, merge_settings
from dit_tools.jobs.sweep import Axis, points

MAX_JOBS = 100_000


@dataclass(frozen=True)
class Job:
    """One image: its prompt, its seed, its settings, and where it came from.

    ``line`` is that of its prompt file; ``place`` its position on every axis of the sweep, and
    ``labels`` the values there in words.
    """

    index: int
    prompt: str
    seed: int
    settings: Settings
    line: int = 0
    place: tuple[int, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def make_jobs(items: Sequence[PromptItem], layers: Sequence[Mapping[str, Any]], axes: Sequence[Axis] = ()) -> list[Job]:
    """Every image of a run, in order: prompts, then the sweep, then seeds.

    ``layers`` are read options, the later the stronger; those of a prompt's own line are stronger
    than all, and the sweep stronger still. Raises UsageError or, for a line of a prompt file,
    InputError that names it.
    """
    if not items:
        raise UsageError("no prompt", 'give one, for example: dit generate "a red apple"')
    jobs: list[Job] = []
    for item in items:
        for job in _of_item(item, layers, axes):
            if len(jobs) >= MAX_JOBS:
                raise UsageError(f"more than {MAX_JOBS} images", "split the run")
            jobs.append(dataclasses.replace(job, index=len(jobs)))
    return jobs


def _of_item(item: PromptItem, layers: Sequence[Mapping[str, Any]], axes: Sequence[Axis]) -> Iterator[Job]:
    where = f"{item.source}:{item.line}" if item.source else ""
    try:
        own = read_values(item.options, where)
        base = merge_settings([*layers, own])
        drawn = seeds(base)  # once an item, so that random seeds are the same all over a sweep
    except DitError as error:
        if where and item.options:
            message = error.message.removeprefix(f"{where}: ")
            raise InputError(f"{where}: {message}", error.hint) from None
        raise
    for point in points(axes):
        settings = merge_settings([*layers, own, point.options]) if axes else base
        labels = {axis.key: axis.labels[i] for axis, i in zip(axes, point.place, strict=True)}
        for seed in seeds(settings) if "seed" in point.options else drawn:
            yield Job(0, item.prompt, seed, settings, item.line, point.place, labels)


def seeds(settings: Settings) -> tuple[int, ...]:
    """The seeds of a prompt: as listed, or ``num_images`` that count up from the one given.

    Raises UsageError when a list and a number of images contradict each other.
    """
    listed, count = parse_seeds(settings.seed), settings.num_images
    first = listed[0]
    if count is None or count == len(listed):
        return listed
    if len(listed) > 1:
        message = f"--num-images {count}: --seed lists {len(listed)} seeds"
        raise UsageError(message, "give one of them")
    if settings.seed.strip() == "-1":
        return parse_seeds(",".join(["-1"] * count))
    if first + count - 1 > MAX_SEED:
        raise UsageError(f"--num-images {count}: the seeds run over {MAX_SEED}", "start lower")
    return tuple(range(first, first + count))
