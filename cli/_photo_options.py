"""Options of the commands for photographs: ``superres``, ``restore`` and ``degrade``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import typer

from dit_cli import _options as o

Photographs = Annotated[
    list[str], typer.Argument(metavar="IMAGE...", help="Images, folders, patterns, @LIST, or - for a list on stdin.")
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength", metavar="0..1", rich_help_panel=o.IMAGE, help="Share of the network's correction (default: 1)."
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        rich_help_panel=o.MODEL,
        help="Built-in name, or folder of a model (default: the built-in network).",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        rich_help_panel=o.HARDWARE,
        help="auto, cpu, cuda, cuda:1 or tensorrt (default: auto).",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        rich_help_panel=o.HARDWARE,
        help="float32, or int8 where the model has it, which is faster (default: float32).",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        rich_help_panel=o.RUN,
        help="File, folder/, template with {stem} and {index}, or - for stdout.",
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        "--tile",
        metavar="PIXELS",
        rich_help_panel=o.HARDWARE,
        help="Side of a tile; 0: the whole image at once (default: the model's).",
    ),
]
Reference = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="PATH",
        rich_help_panel=o.RUN,
        help="Image, or folder of images of the same names, to measure PSNR and SSIM against.",
    ),
]
Compare = Annotated[
    bool,
    typer.Option("--compare", rich_help_panel=o.RUN, help="Write NAME-compare.png, before and after side by side."),
]


class Files(TypedDict):
    """Where results go, and what is told."""

    reference: Reference
    compare: Compare
    output: Output
    format: o.Format
    quality: o.Quality
    no_metadata: o.NoMetadata
    overwrite: o.Overwrite
    skip_existing: o.SkipExisting
    json: o.Json
    quiet: o.Quiet


class Network(Files):
    """A network for photographs."""

    strength: Strength
    model: Model
    device: Device
    dtype: Dtype
    tile: Tile


def fields(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request from the options of a block."""
    own = ("json", "no_metadata")
    made = {name: value for name, value in given.items() if name not in own and value is not None}
    return {**made, "metadata": not given["no_metadata"]}


def start(assemble: Callable[..., Any], request: Any, given: dict[str, Any]) -> int:
    """Check a request, run it and give the exit code."""
    from dit_cli import _output

    with _output.report_errors(given["json"]):
        _output.check_stdout(given["output"], given["json"])
        batch = assemble(request, _output.announcer(given["json"], given["quiet"], line))
    return _output.finish(batch.start(), given["quiet"])


def line(event: dict[str, Any]) -> str:
    """What is said of a result: size, time, and the comparison with its reference."""
    said = [f"{event['width']}x{event['height']} in {event['seconds']:.2f} s"]
    if "psnr" in event:
        said.append(f"PSNR {event['psnr']:.2f} dB")
    if "psnr_y" in event:
        said.append(f"of brightness {event['psnr_y']:.2f} dB")
    if "ssim" in event:
        said.append(f"SSIM {event['ssim']:.4f}")
    if event.get("note"):
        said.append(event["note"])
    return f"dit: {event['source']}: {', '.join(said)}"
