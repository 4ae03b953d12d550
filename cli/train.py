"""``dit train``: a model from a recipe and a folder of captioned images."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer

from dit_cli._app import command as make
from dit_cli._errors import say
from dit_cli._method_options import Adapter, Objectives
from dit_cli._options import Device, DryRun, Json, Overwrite, Quiet
from dit_tools.core.errors import InputError, UsageError

STAGES, DTYPES = ("all", "autoencoder"), ("auto", "bfloat16", "float32")


def _recipes(incomplete: str) -> list[str]:
    from dit_tools.tasks.train.builtin_recipes import paths

    return [name for name in paths() if name.startswith(incomplete)]


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Recipe: a TOML file, or the name of one that comes with dit, such as emoji or superres.",
            autocompletion=_recipes,
        ),
    ] = None,
    named: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME", help="The same as RECIPE.", autocompletion=_recipes)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="FOLDER",
            help="Folder or zip of captioned images, in place of the recipe's; for a recipe that comes with dit, "
            "the folder that its list of captions is in (default: $DIT_DATA).",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Folder of the run (default: runs/NAME, with the name of the recipe).",
        ),
    ] = None,
    objective: Objectives = None,
    adapter: Adapter = None,
    stage: Annotated[str, typer.Option("--stage", metavar="NAME", help="Stage to train: all or autoencoder.")] = "all",
    max_steps: Annotated[
        int | None,
        typer.Option(
            "--max-steps", metavar="N", min=1, help="Stop after N steps of a stage; the same command continues the run."
        ),
    ] = None,
    save_every: Annotated[
        int, typer.Option("--save-every", metavar="N", min=1, help="Number of steps between checkpoints.")
    ] = 50,
    sample_every: Annotated[
        int, typer.Option("--sample-every", metavar="N", min=1, help="Number of steps between sample sheets.")
    ] = 200,
    export: Annotated[
        str | None,
        typer.Option(
            "--export", metavar="FOLDER", help="Also write the finished model with ONNX graphs to this folder."
        ),
    ] = None,
    device: Device = None,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="NAME", help="Compute precision: auto, bfloat16 or float32.")
    ] = "auto",
    compile: Annotated[  # noqa: A002
        bool,
        typer.Option("--compile/--no-compile", help="Compile the training step of the transformer with torch.compile."),
    ] = False,
    terminal_step: Annotated[
        str | None,
        typer.Option(
            "--terminal-step",
            metavar="MODEL",
            help="Instead of training a recipe, fit the extra first step of '--noise oms' to the images of --data "
            "and write it into this model's folder.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a text-to-image model, an adapter or a network for photographs from a recipe.

    A run that was stopped continues where it stopped when the same command is given again, and
    gives bit for bit the result of an undisturbed run. Ctrl-C saves a checkpoint and exits. The
    folder of the run holds checkpoints, log.jsonl, loss.png and sample sheets, and at the end
    'pipeline', a diffusers model for 'dit generate -m'. A recipe with [adapter] writes
    NAME.safetensors instead, for --lora. A recipe of a network for photographs, such as 'superres'
    or 'restore', reads tar files below --data and writes 'model', for -m of 'dit superres' and 'dit
    restore'. Prints the path of the result.
    """
    from dit_cli.training import (
        export_to,
        fit_terminal_step,
        is_first_process,
        plan,
        prepare,
        recipe_file,
        resolve_sizes,
        start,
    )
    from dit_cli.training import photo_recipe as photo_recipe_of

    teller = Teller(json, quiet)
    if terminal_step is not None:
        _print([str(fit_terminal_step(terminal_step, data, recipe or named, teller))], json)
        return
    source = recipe_file(recipe, named)
    options = {
        "device": device or "auto",
        "dtype": dtype,
        "compiling": compile,
        "stop": max_steps,
        "save_every": save_every,
        "sample_every": sample_every,
    }
    if photo := photo_recipe_of(source):
        _refuse(objective=objective, adapter=adapter, stage=stage != "all", export=export, compile=compile)
        _photo(photo, output, data, overwrite, dry_run, teller, options)
        return
    made = prepare(source, data, tuple(objective or ()), adapter)
    run = Path(output) if output else Path("runs") / made.name
    made = resolve_sizes(made, run)
    if export and made.adapter.model:
        raise UsageError(
            "--export is not available for adapters, which are a single file", "use the file with 'dit generate --lora'"
        )
    _check(stage, dtype, run, export, overwrite)
    if dry_run:
        found, words = plan(made, run, device or "auto", dtype, teller)
        if json:
            print(json_format.dumps(found))
        for line in words:
            say(f"dit: {line}")
        return

    with teller:
        folder = start(made, source, run, stage, overwrite, teller, options)
    if not is_first_process():
        return
    paths = [str(folder)] if folder else []
    if export and folder and stage == "all":
        export_to(folder, Path(export), made)
        paths.append(export)
    if folder is None:
        say(f"dit: stopped at --max-steps {max_steps}; the same command continues the run")
    _print(paths, json)


def _photo(
    recipe: Any,
    output: str | None,
    data: str | None,
    overwrite: bool,
    dry_run: bool,
    teller: Teller,
    options: dict[str, Any],
) -> None:
    """Train a network for photographs."""
    from dit_cli.training import start_photo

    run = Path(output) if output else Path("runs") / recipe.name
    _check("all", options["dtype"], run, None, overwrite)
    if dry_run:
        say(f"dit: would train {recipe.name} in {run}")
        return
    with teller:
        folder = start_photo(recipe, run, data, overwrite, teller, options)
    if folder is None:
        say(f"dit: stopped at --max-steps {options['stop']}; the same command continues the run")
        return
    _print([str(folder)], teller.json)


def _refuse(**given: Any) -> None:
    """Raise UsageError for an option that recipes of text-to-image models alone have."""
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name}: not for a network for photographs", "leave it out")


def _print(paths: list[str], json: bool) -> None:
    for path in paths:
        print(json_format.dumps({"type": "done", "path": path}) if json else path)


def _check(stage: str, dtype: str, run: Path, export: str | None, overwrite: bool) -> None:
    if stage not in STAGES:
        raise UsageError(f"--stage {stage}: unknown stage", f"choose from {', '.join(STAGES)}")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: not supported for training", f"use {', '.join(DTYPES)}")
    if run.exists() and not run.is_dir():
        raise InputError(f"-o {run} is a file", "give a folder")
    if export and Path(export).exists() and not overwrite:
        raise InputError(f"--export {export}: the folder exists", "add --overwrite, or choose another folder")


class Teller:
    """Tells what happens: events as JSON on stdout, or lines and a progress bar on stderr."""

    def __init__(self, json: bool, quiet: bool):
        self.json, self.quiet = json, quiet
        self.stage, self.bar = "", None

    def __call__(self, event: dict[str, Any]) -> None:
        """Show an event of the training."""
        if event["type"] == "progress":
            self._advance(event)
            return
        if self.json:
            print(json_format.dumps(event), flush=True)
        if event["type"] == "skipped":  # always: nobody should miss it
            self._say(f"dit: {event['file']}: {event['reason']}; skipped")
        elif not self.quiet and not self.json and (line := _line(event)):
            self._say(line)

    def _advance(self, event: dict[str, Any]) -> None:
        from dit_tools.jobs.progress import bar

        if event["stage"] != self.stage:
            self.close()
            self.stage, self.bar = event["stage"], bar(event["steps"], event["stage"], self.quiet or self.json)
            self.bar.initial = self.bar.n = event["step"] - 1
        if self.bar is not None:
            self.bar.update(1)

    def _say(self, line: str) -> None:
        if self.bar is not None:
            self.bar.clear()
        say(line)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _line(event: dict[str, Any]) -> str:
    if event["type"] == "sample":
        return f"dit: samples in {event['path']}"
    if event["type"] != "step":
        return ""
    more = f", PSNR {event['psnr']} dB" if "psnr" in event else ""
    parts = "".join(f", {name} {value:.4f}" for name, value in event.get("losses", {}).items())
    left = (event["steps"] - event["step"]) / max(event["steps"], 1)
    return (
        f"dit: {event['stage']} {event['step']}/{event['steps']} ({1 - left:.0%}): "
        f"loss {event['loss']:.4f}{parts}{more}, "
        f"{event['images_per_second']:.1f} images/s, {_time(event['seconds_left'])} left"
    )


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min" if minutes else f"{rest} s"


command = make(train)
