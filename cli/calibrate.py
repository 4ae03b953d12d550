"""``dit calibrate``: measures or trains once what a cache has to know about a model."""

from __future__ import annotations

import json as json_format
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dit_cli import _method_options, _option_groups
from dit_cli import _options as o
from dit_cli._app import command as make
from dit_cli._errors import say
from dit_tools.core.errors import ExitCode, UsageError

Presets = Annotated[
    bool,
    typer.Option(
        "--presets", help="Measure the presets slow, medium, fast and ultra of --cache.", rich_help_panel=o.METHODS
    ),
]

Heads = Annotated[
    int | None,
    typer.Option(
        "--heads",
        metavar="N",
        min=1,
        rich_help_panel=o.METHODS,
        help="Search for the N best attention heads for --guidance soft-pag.",
    ),
]


def calibrate(
    model: o.Model = None,
    cache: _method_options.Cache = None,
    presets: Presets = False,
    heads: Heads = None,
    prompt_file: o.PromptFile = None,
    prompts: Annotated[
        int,
        typer.Option(
            "--prompts",
            min=1,
            max=1000,
            metavar="N",
            help="Number of calibration prompts when no --prompt-file is given.",
        ),
    ] = 8,
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds",
            min=1,
            max=100_000,
            metavar="N",
            help="Training trajectories for harmonica and ilf, two prompts each.",
        ),
    ] = 40,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=1_000_000, metavar="N", help="Seed of the calibration noise.")
    ] = 0,
    size: o.Size = None,
    steps: o.Steps = None,
    cfg_scale: o.CfgScale = None,
    schedule: _method_options.Schedule = None,
    solver: _method_options.Solver = None,
    guidance: _method_options.Guidance = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    backend: o.Backend = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            rich_help_panel=o.RUN,
            help="Output file: .safetensors, or .toml with --heads (default: the calibration cache).",
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Calibrate a cache for a model.

    The caches ertacache, magcache, harmonica and ilf need a calibration file. They look it up by
    model, steps, solver, schedule and guidance; 'dit generate --calibration FILE' names one
    explicitly. The calibration is evaluated on prompts and noise that it was not made from. Prints
    the path of the file. With --heads the command prints a value for --guidance and can write it
    to a .toml file for --config.
    """
    given = {**locals()}
    from dit_tools.jobs.interrupt import Interruptible
    from dit_tools.tasks.calibrate import run as engine
    from dit_tools.tasks.calibrate import start

    if [cache is not None, presets, heads is not None].count(True) != 1:
        raise UsageError("dit calibrate needs one of --cache, --presets and --heads", "give exactly one of them")
    path = engine.check_output(output, overwrite) if heads is None else _toml(output, overwrite)
    if heads is not None and guidance is None:
        given["guidance"] = "soft-pag"
    values = _option_groups.values({**given, "seed": None, "cache": cache or "none"})
    asked = start.prompts_of(list(prompt_file)) if prompt_file else prompts
    with Interruptible() as interrupts:
        interrupts.stop_requested = True  # one item: the first Ctrl-C stops it
        session, others = start.start_calibration(values, asked, rounds, seed, _progress(quiet or json))
        if presets:
            return _presets(session, values, json)
        if heads is not None:
            return _heads(session, heads, path, json)
        calibration = engine.calibrate(session)
        verdict = engine.evaluate_calibration(session, calibration, others)
        written = engine.write_calibration(calibration, path)
    facts = {"cache": verdict.spec, "psnr": _finite(verdict.psnr), "computed": verdict.computed}
    if json:
        print(json_format.dumps({"type": "done", "path": str(written), **facts}))
        return ExitCode.OK
    if not quiet:
        say(f"dit: {verdict.spec}: {verdict.computed:.0%} of the network computed, PSNR {verdict.psnr:.1f} dB")
    print(written)
    return ExitCode.OK


def _presets(session: Any, values: dict[str, Any], json: bool) -> int:
    """``--presets``: the table goes where ``--cache fast`` looks it up."""
    from dit_tools.tasks.calibrate import presets

    found = presets.choose_presets(presets.measure_presets(session))
    path = presets.save_presets(values.get("model"), session.plan.steps, found)
    if json:
        rows = [row.to_json() for row in found]
        print(json_format.dumps({"type": "done", "path": str(path), "presets": rows}))
        return ExitCode.OK
    for row in found:
        say(f"dit: {row.word} = {row.spec}: {row.computed:.0%} of the network computed, PSNR {row.psnr:.1f} dB")
    print(path)
    return ExitCode.OK


def _toml(output: str | None, overwrite: bool) -> Path | None:
    """The path for the heads. Raises UsageError or InputError when it cannot be written."""
    from dit_tools.jobs.outputs import check_folder

    if output is None:
        return None
    path = Path(output)
    if path.suffix.lower() != ".toml":
        raise UsageError(
            f"-o {output}: --heads writes a .toml file", "choose a name that ends in .toml, or leave -o out"
        )
    if path.exists() and not overwrite:
        raise UsageError(f"-o {output}: the file exists", "choose another name, or add --overwrite")
    check_folder(path, make=False)
    return path


def _heads(session: Any, count: int, path: Path | None, json: bool) -> int:
    """``--heads``: a search scored by the image-text model of 'dit eval'."""
    from dit_tools.core import spec
    from dit_tools.jobs.atomic import atomic_write
    from dit_tools.tasks.calibrate.heads import best_round, search_heads
    from dit_tools.tasks.generate.scorer import LatentScorer

    scorer = LatentScorer(session.model, session.prompts)
    rounds = search_heads(
        session.model,
        session.plan,
        session.prompts,
        lambda x, _: scorer.scores(x),
        keep=count,
        seed=session.seed,
        tell=session.tell,
    )
    found, plain = best_round(rounds), rounds[0].score
    if not found.heads:
        say("dit: no attention head improves the score at this weight; try a smaller weight")
        return ExitCode.FAILURE
    text = spec.format(replace(session.plan.guidance, heads=found.text))
    if path is not None:
        atomic_write(path, f'guidance = "{text}"\n'.encode())
    facts = {"guidance": text, "score": round(found.score, 4), "plain": round(plain, 4)}
    if json:
        print(json_format.dumps({"type": "done", "path": str(path) if path else None, **facts}))
        return ExitCode.OK
    say(f"dit: cosine similarity to the prompt: {found.score:.3f} with the heads, {plain:.3f} without")
    print(path or text)
    return ExitCode.OK


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def _progress(quiet: bool) -> Any:
    from dit_tools.jobs.progress import bar

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
