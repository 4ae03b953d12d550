"""``dit train``: a model from a recipe and a folder of captioned pictures."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from dit_cli._app import command as make
from dit_cli._errors import say
from dit_cli._method_options import Adapter, Objectives
from dit_cli._options import Device, DryRun, Json, Overwrite, Quiet
from dit_tools.core.errors import InputError, UsageError

STAGES, DTYPES = ("all", "autoencoder"), ("auto", "bfloat16", "float32")


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML file; see recipes/.")],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="FOLDER", help="Folder or zip of captioned pictures, in place of the recipe's."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="Folder of the run; else runs/NAME of the recipe."),
    ] = None,
    objective: Objectives = None,
    adapter: Adapter = None,
    stage: Annotated[str, typer.Option("--stage", metavar="NAME", help="all, or autoencoder alone.")] = "all",
    max_steps: Annotated[
        int | None,
        typer.Option("--max-steps", metavar="N", min=1, help="Stop after N steps of a stage; start again to go on."),
    ] = None,
    save_every: Annotated[
        int, typer.Option("--save-every", metavar="N", min=1, help="Steps between checkpoints.")
    ] = 50,
    sample_every: Annotated[
        int, typer.Option("--sample-every", metavar="N", min=1, help="Steps between sample sheets.")
    ] = 200,
    export: Annotated[
        str | None,
        typer.Option("--export", metavar="FOLDER", help="Write the finished model with ONNX graphs as well."),
    ] = None,
    device: Device = None,
    dtype: Annotated[
        str, typer.Option("--dtype", metavar="NAME", help="Of the computation: auto, bfloat16, float32.")
    ] = "auto",
    compile: Annotated[  # noqa: A002
        bool, typer.Option("--compile/--no-compile", help="Compile the transformer's step.")
    ] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a text-to-image model, or an adapter of one, from a recipe.

    A run that was stopped goes on where it stopped, to the bit, when the command is given again.
    Ctrl-C saves and exits. FOLDER gets checkpoints, log.jsonl, loss.png, sample sheets, and in the
    end 'pipeline', a diffusers model that 'dit generate -m' takes, or of a recipe with [adapter]
    NAME.safetensors, which '--lora' takes. Prints its path.
    """
    from dit_cli.training import export_to, leads, prepare, settle, start

    made = prepare(Path(recipe), data, tuple(objective or ()), adapter)
    run = Path(output) if output else Path("runs") / made.name
    made = settle(made, run)
    if export and made.adapter.model:
        raise UsageError("--export: an adapter is one file", "give it to --lora of dit generate")
    _check(stage, dtype, run, export, overwrite)
    if dry_run:
        say(f"dit: would train {made.name} in {run}")
        return

    options = {
        "device": device or "auto",
        "dtype": dtype,
        "compiling": compile,
        "stop": max_steps,
        "save_every": save_every,
        "sample_every": sample_every,
    }
    folder = start(made, Path(recipe), run, stage, overwrite, _teller(json, quiet), options)
    if not leads():
        return
    paths = [str(folder)] if folder else []
    if export and folder and stage == "all":
        export_to(folder, Path(export), made)
        paths.append(export)
    if folder is None:
        say(f"dit: stopped at --max-steps {max_steps}; give the command again to go on")
    for path in paths:
        print(json_format.dumps({"type": "done", "path": path}) if json else path)


def _check(stage: str, dtype: str, run: Path, export: str | None, overwrite: bool) -> None:
    if stage not in STAGES:
        raise UsageError(f"--stage {stage}: no such stage", f"choose from {', '.join(STAGES)}")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype}: not for training", f"use {', '.join(DTYPES)}")
    if run.exists() and not run.is_dir():
        raise InputError(f"-o {run}: is a file", "give a folder")
    if export and Path(export).exists() and not overwrite:
        raise InputError(f"--export {export}: exists", "add --overwrite, or choose another folder")


def _teller(json: bool, quiet: bool) -> Callable[[dict[str, Any]], None]:
    def tell(event: dict[str, Any]) -> None:
        if json:
            print(json_format.dumps(event), flush=True)
        if event["type"] == "skipped":  # always: nobody should miss it
            say(f"dit: {event['file']}: {event['reason']}; skipped")
        elif not quiet and not json and (line := _line(event)):
            say(line)

    return tell


def _line(event: dict[str, Any]) -> str:
    if event["type"] == "sample":
        return f"dit: samples in {event['path']}"
    if event["type"] != "step":
        return ""
    more = f", PSNR {event['psnr']} dB" if "psnr" in event else ""
    left = (event["steps"] - event["step"]) / max(event["steps"], 1)
    return (
        f"dit: {event['stage']} {event['step']}/{event['steps']} ({1 - left:.0%}): loss "
        f"{event['loss']:.4f}{more}, {event['pictures_per_second']:.1f} pictures/s"
    )


command = make(train)
