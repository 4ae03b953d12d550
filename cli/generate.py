"""``dit generate``: images from prompts. The work is in ``dit_tools.tasks.generate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dit_cli import _method_options, _option_groups
from dit_cli import _options as o
from dit_cli._app import command as make
from dit_tools.core.errors import ExitCode

Base = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="MODEL",
        rich_help_panel=o.MODEL,
        help="Model that supplies the parts missing from a single-file checkpoint.",
    ),
]
SecondModel = Annotated[
    str | None,
    typer.Option(
        "--second-model",
        metavar="MODEL",
        rich_help_panel=o.MODEL,
        help="Second model for --combine: a built-in name, folder, file or hub id.",
    ),
]
SecondPrompt = Annotated[
    str | None,
    typer.Option(
        "--second-prompt", metavar="TEXT", rich_help_panel=o.IMAGE, help="Second prompt for --combine superdiff."
    ),
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="KEY=A,B,...",
        rich_help_panel=o.IMAGE,
        help="Make every image with each of these values; may be given several times.",
    ),
]
Grid = Annotated[
    str | None, typer.Option("--grid", metavar="FILE", help="Also write a contact sheet.", rich_help_panel=o.RUN)
]
SaveSteps = Annotated[
    str | None,
    typer.Option(
        "--save-steps",
        metavar="FILE",
        rich_help_panel=o.RUN,
        help="Also write an animation of the denoising steps: .gif, .webp or .mp4.",
    ),
]
Fps = Annotated[
    float,
    typer.Option(
        "--fps",
        metavar="N",
        help="Frames per second of that animation or of a redrawn video.",
        rich_help_panel=o.RUN,
        min=0.1,
    ),
]
Preview = Annotated[bool, typer.Option("--preview", help="Show the images in the terminal.", rich_help_panel=o.RUN)]
Stream = Annotated[
    str | None,
    typer.Option(
        "--stream",
        metavar="FRAMES",
        rich_help_panel=o.IMAGE,
        help="Redraw the frames of a folder, a video, or '-' (a pipe).",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        metavar="0..1",
        rich_help_panel=o.IMAGE,
        help="With --stream: how much to change each frame (default: 0.6).",
    ),
]
Similarity = Annotated[
    float | None,
    typer.Option(
        "--similarity",
        metavar="0..1",
        rich_help_panel=o.RUN,
        help="With --stream: cosine similarity from which frames may be skipped (default: 0.98).",
    ),
]
MaxSkip = Annotated[
    int | None,
    typer.Option(
        "--max-skip",
        metavar="N",
        min=0,
        rich_help_panel=o.RUN,
        help="With --stream: longest series of skipped frames (default: 10).",
    ),
]
FromLatent = Annotated[
    str | None,
    typer.Option(
        "--from-latent",
        metavar="FILE",
        rich_help_panel=o.IMAGE,
        help="Start from a .latent file written by 'dit invert'.",
    ),
]
MinPsnr = Annotated[
    str | None,
    typer.Option(
        "--min-psnr",
        metavar="DB",
        rich_help_panel=o.METHODS,
        help="Tune --cache so that the PSNR to the uncached image stays at least this high.",
    ),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare", rich_help_panel=o.RUN, help="Also run without the cache and report seconds, PSNR and memory."
    ),
]


def generate(
    prompts: o.Prompts = None,
    prompt: o.ManyPrompts = None,
    prompt_file: o.PromptFile = None,
    width: o.Width = None,
    height: o.Height = None,
    transparent: o.Transparent = None,
    background: o.Background = None,
    from_latent: FromLatent = None,
    stream: Stream = None,
    strength: Strength = None,
    similarity: Similarity = None,
    max_skip: MaxSkip = None,
    sweep: Sweep = None,
    base: Base = None,
    allow_pickle: o.AllowPickle = None,
    min_psnr: MinPsnr = None,
    combine: _method_options.Combine = None,
    second_model: SecondModel = None,
    second_prompt: SecondPrompt = None,
    batch_size: o.BatchSize = None,
    offload: o.Offload = None,
    vae_tiling: o.VaeTiling = None,
    vae_slicing: o.VaeSlicing = None,
    grid: Grid = None,
    save_steps: SaveSteps = None,
    fps: Fps = 10.0,
    preview: Preview = False,
    compare: Compare = False,
    config: o.Config = None,
    preset: o.Preset = None,
    from_image: o.FromImage = None,
    dry_run: o.DryRun = False,
    verbose: o.Verbose = 0,
    **shared: Any,
) -> int:
    """Generate images from prompts.

    Writes one image per prompt and seed and prints its path. Every image carries a record of how
    it was made, and 'dit replay' makes it again from that record. A run into a folder that was
    stopped continues where it stopped when the same command is given again.
    """
    given = {**locals(), **shared}
    from dit_cli import _output
    from dit_tools.jobs.models import look_up, look_up_offline
    from dit_tools.tasks.generate.request import Request, plan_generation
    from dit_tools.tasks.generate.run import Options

    values = _option_groups.values(given)
    prompts = [*(prompts or ()), *(prompt or ())]
    if stream is not None:
        return _stream(given, prompts, values)
    _leave_out(given, ("strength", "similarity", "max_skip"), "without --stream")
    if from_latent is not None:
        return _from_latent(given, prompts, values)
    json, quiet = shared["json"], shared["quiet"]
    extra = Options(batch_size or 1, grid, save_steps, fps, preview, not shared["no_metadata"], quiet, compare=compare)
    with _output.report_errors(json):
        _output.check_stdout(shared["output"], json)
        request = Request(
            prompts,
            values,
            list(prompt_file or ()),
            list(sweep or ()),
            config,
            preset,
            from_image,
            shared["output"],
            shared["overwrite"],
            shared["skip_existing"],
            extra,
        )
        find = look_up_offline if dry_run else look_up
        run, notes = plan_generation(request, _output.emitter(json, verbose), find)
    for note in notes:
        _output.say(f"dit: {note}")
    if dry_run:
        _output.show_plan(run, json)
        return ExitCode.OK
    return _output.finish(run.start(), quiet)


def _from_latent(given: dict[str, Any], prompts: list[str], values: dict[str, Any]) -> int:
    """``--from-latent``: reconstruct an inverted image, or sample it with another prompt."""
    from dit_cli import _output
    from dit_tools.tasks.from_latent import Request, plan_from_latent

    unfit = (
        "prompt_file",
        "sweep",
        "batch_size",
        "grid",
        "save_steps",
        "preview",
        "config",
        "preset",
        "from_image",
        "dry_run",
        "base",
        "min_psnr",
    )
    with _output.report_errors(given["json"]):
        _leave_out(given, unfit, "with --from-latent")
        _output.check_stdout(given["output"], given["json"])
        request = Request(
            given["from_latent"],
            prompts,
            values,
            given["output"],
            given["overwrite"],
            given["skip_existing"],
            not given["no_metadata"],
            given["quiet"],
        )
        batch = plan_from_latent(request, _output.emitter(given["json"], given["verbose"]))
    return _output.finish(batch.start(), given["quiet"])


def _stream(given: dict[str, Any], prompts: list[str], values: dict[str, Any]) -> int:
    """``--stream``: frames in, frames out."""
    from dit_cli import _output
    from dit_tools.tasks.stream.run import Request, plan_stream

    quiet = given["quiet"]
    unfit = (
        "from_latent",
        "prompt_file",
        "sweep",
        "num_images",
        "batch_size",
        "grid",
        "save_steps",
        "preview",
        "compare",
        "config",
        "preset",
        "from_image",
        "dry_run",
        "skip_existing",
        "second_model",
        "second_prompt",
    )
    with _output.report_errors(given["json"]):
        _leave_out(given, unfit, "with --stream")
        _output.check_stdout(given["output"], given["json"])
        more = {"strength": given["strength"], "similarity": given["similarity"], "longest": given["max_skip"]}
        request = Request(
            given["stream"],
            prompts,
            values,
            output=given["output"],
            fps=given["fps"],
            overwrite=given["overwrite"],
            metadata=not given["no_metadata"],
            quiet=quiet,
            **{name: value for name, value in more.items() if value is not None},
        )
        run = plan_stream(request, _output.emitter(given["json"], given["verbose"]))
    return _output.finish(run.start(), quiet)


def _leave_out(given: dict[str, Any], unfit: tuple[str, ...], where: str) -> None:
    """Raise UsageError for the first of these options that was given."""
    from dit_tools.core.errors import UsageError

    for name in unfit:
        if given[name] not in (None, False, [], ()):
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} cannot be used {where}", "leave it out")


command = make(generate, _option_groups.ImageOptions)
