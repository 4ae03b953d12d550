"""From what the user typed to a run that is ready to start: everything is checked here, cheaply."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dit_tools.core.errors import DitError, UsageError
from dit_tools.jobs.config import read_config, read_preset
from dit_tools.jobs.events import Listener, error_event
from dit_tools.jobs.expand import Job, make_jobs
from dit_tools.jobs.image_outputs import default_template
from dit_tools.jobs.models import KnownModel, Load, look_up
from dit_tools.jobs.options import NAMES, check_prompt, read_values
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.prompts import PromptItem, read_prompts
from dit_tools.jobs.record import from_image as from_picture
from dit_tools.jobs.runner import REASONS, Runner
from dit_tools.jobs.settings import Settings
from dit_tools.jobs.sweep import parse_axes
from dit_tools.tasks.generate import compare, sheets, tune_cache
from dit_tools.tasks.generate.run import GenerateImages, Options, items_of

LINE_OPTIONS = tuple(name for name in NAMES if name != "allow_pickle")
"""What a line of a prompt file may set; running code of a pickle is not the file's to allow."""
MAX_BATCH = 1024


@dataclass
class Request:
    """The command line of ``dit generate``; ``values`` holds its options, None where not given."""

    prompts: Sequence[str] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    prompt_files: Sequence[str] = ()
    sweeps: Sequence[str] = ()
    config: str | None = None
    preset: str | None = None
    from_image: str | None = None
    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    options: Options = field(default_factory=Options)


def plan_generation(
    request: Request, listen: Listener, find: Callable[[Any], KnownModel] = look_up, load: Load | None = None
) -> tuple[Runner, list[str]]:
    """The run of a request, and notes for the user, such as metadata that was left aside.

    Nothing heavy is imported and nothing written. ``find`` and ``load`` stand for the look-up and
    the loading of models. Raises the DitError of whatever is wrong with the request.
    """
    if not 1 <= request.options.batch_size <= MAX_BATCH:
        message = f"--batch-size {request.options.batch_size}: out of range"
        raise UsageError(message, f"give 1..{MAX_BATCH}")
    axes = parse_axes(request.sweeps)
    layers, fallback, notes = _layers(request)
    jobs = make_jobs(_items(request, fallback), layers, axes)
    sheets.check_sheets(request.options.grid, request.options.save_steps, request.options.fps)
    _check_methods(jobs)
    if request.options.compare:
        compare.check_comparison(jobs)
    tune_cache.check_tunable(jobs)
    known = {job.settings.model: job.settings for job in jobs}
    found = {reference: find(settings) for reference, settings in known.items()}
    _find_seconds(known.values(), find)
    for settings in dict.fromkeys(job.settings for job in jobs):
        found[settings.model].check_size(settings)
    options = request.options
    outputs = Outputs(
        request.output, default_template(axes), request.overwrite, request.skip_existing, stdout=options.stdout
    )
    items = items_of(jobs, axes, found, request.output, options.metadata)
    task = GenerateImages(axes, outputs, options, load)
    return Runner(items, task, outputs, listen, quiet=options.quiet), notes


def _layers(request: Request) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Option layers from weak to strong, prompts for want of others, notes."""
    config: dict[str, Any] = {}
    presets: dict[str, Any] = {}
    if request.config is not None:
        config, presets = read_config(request.config)
    preset = read_preset(request.preset, presets, request.config or "") if request.preset else {}
    prompts = preset.pop("prompt", None) or config.pop("prompt", None) or []
    config.pop("prompt", None)
    image: dict[str, Any] = {}
    notes: list[str] = []
    if request.from_image is not None:
        prompt, image, aside = from_picture(request.from_image)
        prompts = [prompt] if prompt is not None else prompts
        if aside:
            notes.append(f"{request.from_image}: not understood: {', '.join(aside)}")
    notes += [note for text in request.prompts if (note := _odd_prompt(text))]
    return [config, preset, image, read_values(request.values)], prompts, notes


def _odd_prompt(text: str) -> str | None:
    """A word of warning where a prompt is empty, or the path of a file: a second one that a pattern gave."""
    if not text.strip():
        return "the prompt is empty: the image follows nothing"
    if text == "-" or len(text) > 4096 or "\0" in text or not os.path.isfile(text):
        return None
    return (
        f"the prompt {text!r} is the path of a file; files are given with --from-latent, --from-image or --prompt-file"
    )


def _items(request: Request, fallback: Sequence[str]) -> list[PromptItem]:
    files = [str(name) for name in request.prompt_files]
    if files.count("-") + list(request.prompts).count("-") > 1:
        raise UsageError("stdin is asked for twice", "give - once")
    items: list[PromptItem] = []
    for text in request.prompts:
        if text == "-":
            items += read_prompts("-", options=LINE_OPTIONS)
        else:
            check_prompt(text, "--prompt")
            items.append(PromptItem(text))
    for name in files:
        items += read_prompts(name, options=LINE_OPTIONS)
    if not items:
        for text in fallback:
            check_prompt(text, "prompt")
        items = [PromptItem(text) for text in fallback]
    return items


def _find_seconds(models: Iterable[Settings], find: Callable[[Any], KnownModel]) -> None:
    """A second model that is not there is told before the first one is loaded."""
    for settings in models:
        if settings.second_model is not None:
            find(replace(settings, model=settings.second_model, base=None))


def _check_methods(jobs: Sequence[Job]) -> None:
    """Make every plan of the run once, so that no image fails for its methods later."""
    for settings in dict.fromkeys(job.settings for job in jobs):
        settings.check()


def plan_events(run: Runner) -> list[dict[str, Any]]:
    """What ``--dry-run`` tells: an ``item`` or ``skip`` event per image, nothing made."""
    from dit_tools.jobs.events import event

    made = []
    for target in run.targets:
        job = target.item.data[0]
        options = {f.name: getattr(job.settings, f.name) for f in fields(job.settings)}  # no cached methods
        given = {k: v for k, v in options.items() if v is not None and v is not False and v != ()}
        shown = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
        shown.pop("num_images", None)
        shown["seed"] = job.seed
        if target.state == "make":
            made.append(
                event(
                    "item",
                    index=job.index + 1,
                    path=target.shown,
                    dry_run=True,
                    prompt=job.prompt,
                    seed=job.seed,
                    settings=shown,
                )
            )
        else:
            reason = REASONS.get(target.state, str(target.error))
            made.append(event("skip", index=job.index + 1, path=target.shown, reason=reason, dry_run=True))
    return made


def failure_events(error: DitError) -> list[dict[str, Any]]:
    """The events of a request that never became a run: ``error`` and ``done``."""
    from dit_tools.jobs.events import Outcome

    outcome = Outcome(failed=[("", error)])
    return [error_event(error), outcome.event()]
