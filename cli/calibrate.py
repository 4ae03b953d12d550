"""``dit calibrate``: what a cache must know about a model, measured or trained once."""

from __future__ import annotations

import json as json_format
import math
from typing import Annotated, Any

import typer

from dit_cli import blocks, choices
from dit_cli import options as o
from dit_cli.command import command as make
from dit_cli.report import say
from dit_tools.core.errors import ExitCode, UsageError

Words = Annotated[
    bool,
    typer.Option("--presets", help="Measure slow, medium, fast and ultra of --cache instead.",
                 rich_help_panel=o.METHODS),
]  # fmt: skip


def calibrate(
    model: o.Model = None,
    cache: choices.Cache = None,
    presets: Words = False,
    prompt_file: o.PromptFile = None,
    prompts: Annotated[
        int, typer.Option("--prompts", min=1, max=1000, metavar="N",
                          help="Prompts to learn from, where no file names them.")
    ] = 8,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=100_000, metavar="N",
                          help="How often harmonica and ilf see them, from other noise.")
    ] = 40,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=1_000_000, metavar="N", help="Of the noise.")
    ] = 0,
    size: o.Size = None,
    steps: o.Steps = None,
    cfg_scale: o.CfgScale = None,
    schedule: choices.Schedule = None,
    solver: choices.Solver = None,
    guidance: choices.Guidance = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    backend: o.Backend = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE", rich_help_panel=o.RUN,
                     help="A .safetensors file; else where --cache finds it by itself."),
    ] = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:  # fmt: skip
    """Learn about a model what a cache must know before it can skip.

    ertacache, magcache, harmonica and ilf of --cache look a file of this command up by model,
    steps, solver, schedule and guidance; 'dit generate --calibration FILE' names one. It is judged
    on prompts and noise that it was not made from. Prints the file's path.
    """
    given = {**locals()}
    from dit_tools.batch.interrupt import Interruptible
    from dit_tools.calibrating import run as engine
    from dit_tools.calibrating import start

    if presets == (cache is not None):
        raise UsageError("dit calibrate: what for?", "give --cache NAME, or --presets")
    path = engine.check_output(output, overwrite)
    values = blocks.values({**given, "seed": None, "cache": cache or "none"})
    asked = start.prompts_of(list(prompt_file)) if prompt_file else prompts
    with Interruptible() as interrupts:
        interrupts.stop_requested = True  # one item: the first Ctrl-C stops it
        session, others = start.session(values, asked, rounds, seed, _progress(quiet or json))
        if presets:
            return _presets(session, values, json)
        calibration = engine.calibrate(session)
        verdict = engine.judge(session, calibration, others)
        written = engine.write(calibration, path)
    facts = {"cache": verdict.spec, "psnr": _finite(verdict.psnr), "computed": verdict.computed}
    if json:
        print(json_format.dumps({"type": "done", "path": str(written), **facts}))
        return ExitCode.OK
    if not quiet:
        say(f"dit: {verdict.spec}: {verdict.computed:.0%} computed, PSNR {verdict.psnr:.1f} dB")
    print(written)
    return ExitCode.OK


def _presets(session: Any, values: dict[str, Any], json: bool) -> int:
    """``--presets``: the table goes where ``--cache fast`` looks it up."""
    from dit_tools.calibrating import presets

    found = presets.measure(session)
    path = presets.keep(values.get("model"), session.plan.steps, found)
    if json:
        rows = [row.to_json() for row in found]
        print(json_format.dumps({"type": "done", "path": str(path), "presets": rows}))
        return ExitCode.OK
    for row in found:
        say(f"dit: {row.word} = {row.spec}: {row.computed:.0%} computed, PSNR {row.psnr:.1f} dB")
    print(path)
    return ExitCode.OK


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def _progress(quiet: bool) -> Any:
    from dit_tools.batch.progress import bar

    state: dict[str, Any] = {}

    def tell(done: int, total: int) -> None:
        if "bar" not in state:
            state["bar"], state["done"] = bar(total, "rounds", quiet).__enter__(), 0
        state["bar"].update(done - state["done"])
        state["done"] = done
        if done >= total:
            state.pop("bar").close()

    return tell


command = make(calibrate)
