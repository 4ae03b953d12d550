"""``dit calibrate``: what a cache must know about a model, measured or trained once."""

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

Words = Annotated[
    bool,
    typer.Option(
        "--presets", help="Measure slow, medium, fast and ultra of --cache instead.", rich_help_panel=o.METHODS
    ),
]

Heads = Annotated[
    int | None,
    typer.Option(
        "--heads", metavar="N", min=1, rich_help_panel=o.METHODS, help="Search N heads for --guidance soft-pag instead."
    ),
]


def calibrate(
    model: o.Model = None,
    cache: _method_options.Cache = None,
    presets: Words = False,
    heads: Heads = None,
    prompt_file: o.PromptFile = None,
    prompts: Annotated[
        int,
        typer.Option(
            "--prompts", min=1, max=1000, metavar="N", help="Prompts to learn from, where no file names them."
        ),
    ] = 8,
    rounds: Annotated[
        int,
        typer.Option(
            "--rounds",
            min=1,
            max=100_000,
            metavar="N",
            help="Trajectories of two of them that harmonica and ilf learn from.",
        ),
    ] = 40,
    seed: Annotated[int, typer.Option("--seed", min=0, max=1_000_000, metavar="N", help="Of the noise.")] = 0,
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
            help="A .safetensors file, of heads a .toml; else where it is found.",
        ),
    ] = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Learn about a model what a cache must know before it can skip.

    ertacache, magcache, harmonica and ilf of --cache look a file of this command up by model,
    steps, solver, schedule and guidance; 'dit generate --calibration FILE' names one. It is judged
    on prompts and noise that it was not made from. Prints the file's path. --heads prints what
    --guidance takes, and writes it to a .toml file for --config.
    """
    given = {**locals()}
    from dit_tools.jobs.interrupt import Interruptible
    from dit_tools.tasks.calibrate import run as engine
    from dit_tools.tasks.calibrate import start

    if [cache is not None, presets, heads is not None].count(True) != 1:
        raise UsageError("dit calibrate: what for?", "give --cache NAME, --presets or --heads N")
    path = engine.check_output(output, overwrite) if heads is None else _toml(output, overwrite)
    if heads is not None and guidance is None:
        given["guidance"] = "soft-pag"
    values = _option_groups.values({**given, "seed": None, "cache": cache or "none"})
    asked = start.prompts_of(list(prompt_file)) if prompt_file else prompts
    with Interruptible() as interrupts:
        interrupts.stop_requested = True  # one item: the first Ctrl-C stops it
        session, others = start.session(values, asked, rounds, seed, _progress(quiet or json))
        if presets:
            return _presets(session, values, json)
        if heads is not None:
            return _heads(session, heads, path, json)
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
    from dit_tools.tasks.calibrate import presets

    found = presets.chosen(presets.measure(session))
    path = presets.keep(values.get("model"), session.plan.steps, found)
    if json:
        rows = [row.to_json() for row in found]
        print(json_format.dumps({"type": "done", "path": str(path), "presets": rows}))
        return ExitCode.OK
    for row in found:
        say(f"dit: {row.word} = {row.spec}: {row.computed:.0%} computed, PSNR {row.psnr:.1f} dB")
    print(path)
    return ExitCode.OK


def _toml(output: str | None, overwrite: bool) -> Path | None:
    """Where the heads go. Raises UsageError or InputError for a place that cannot be written."""
    from dit_tools.jobs.outputs import check_folder

    if output is None:
        return None
    path = Path(output)
    if path.suffix.lower() != ".toml":
        raise UsageError(f"-o {output}: heads go to a .toml file", "give one, or leave it out")
    if path.exists() and not overwrite:
        raise UsageError(f"-o {output}: exists", "give another name, or --overwrite")
    check_folder(path, make=False)
    return path


def _heads(session: Any, count: int, path: Path | None, json: bool) -> int:
    """``--heads``: a search with the judge of 'dit eval'."""
    from dit_tools.core import spec
    from dit_tools.jobs.atomic import atomic_write
    from dit_tools.tasks.calibrate.heads import best, hunt
    from dit_tools.tasks.generate.scorer import Critic

    critic = Critic(session.model, session.prompts)
    rounds = hunt(
        session.model,
        session.plan,
        session.prompts,
        lambda x, _: critic.scores(x),
        keep=count,
        seed=session.seed,
        tell=session.tell,
    )
    found, plain = best(rounds), rounds[0].score
    if not found.heads:
        say("dit: no head is better than none with this weight; try a smaller one")
        return ExitCode.FAILURE
    text = spec.format(replace(session.plan.guidance, heads=found.text))
    if path is not None:
        atomic_write(path, f'guidance = "{text}"\n'.encode())
    facts = {"guidance": text, "score": round(found.score, 4), "plain": round(plain, 4)}
    if json:
        print(json_format.dumps({"type": "done", "path": str(path) if path else None, **facts}))
        return ExitCode.OK
    say(f"dit: cosine with the prompt {found.score:.3f}, without the heads {plain:.3f}")
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
