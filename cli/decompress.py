"""``dit decompress``: images from ``.dit`` files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from dit_cli import _options as o
from dit_cli._app import command as make

Files = Annotated[
    list[str], typer.Argument(metavar="FILE...", help=".dit files, or folders of them; - reads one from stdin.")
]
Thumbnail = Annotated[
    int | None,
    typer.Option(
        "--thumbnail", metavar="PIXELS", min=1, max=4096, rich_help_panel=o.IMAGE, help="A small image, quickly."
    ),
]
Strip = Annotated[bool, typer.Option("--strip", rich_help_panel=o.IMAGE, help="Leave out colour profile and EXIF.")]


def decompress(
    files: Files,
    thumbnail: Thumbnail = None,
    strip: Strip = False,
    format: o.Format = None,  # noqa: A002
    device: o.Device = None,
    backend: o.Backend = None,
    output: o.Output = None,
    overwrite: o.Overwrite = False,
    skip_existing: o.SkipExisting = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Make images of .dit files.

    Writes NAME.png where you are, or what -o says. A file that is cut off, damaged or made with
    other tables is refused, and the others are decoded: exit status 3. --thumbnail PIXELS decodes
    the coarse part only, without the network; its longer side has so many pixels at most.
    """
    return start(
        files,
        json,
        thumbnail=thumbnail,
        strip=strip,
        format=format,
        output=output,
        overwrite=overwrite,
        skip_existing=skip_existing,
        quiet=quiet,
        **place(device, backend),
    )


def start(files: Sequence[str], json: bool, **options: Any) -> int:
    """Run ``dit decompress``; also for ``dit compress --decode``."""
    from dit_cli import _output
    from dit_tools.tasks.compress.decompress import Request, assemble

    with _output.report_errors(json):
        _output.check_stdout(options["output"] or ("-" if list(files) == ["-"] else None), json)
        batch = assemble(Request(files, **options), _output.announcer(json, options["quiet"], _line))
    return _output.finish(batch.start(), options["quiet"])


def place(device: str | None, backend: str | None) -> dict[str, str]:
    """Device and backend of the decoder's network. Raises UsageError."""
    from dit_tools.core.errors import UsageError

    device, backend = device or "auto", backend or "auto"
    if device not in ("auto", "cpu") and not device.startswith("cuda"):
        raise UsageError(f"--device {device}: the codec runs on cpu or cuda", "give one of them")
    if backend not in ("auto", "onnx", "torch"):
        raise UsageError(f"--backend {backend}: no such choice", "use auto, torch or onnx")
    return {"device": "cpu" if device == "auto" else device, "backend": "onnx" if backend == "auto" else backend}


def refuse(given: Mapping[str, Any], beside: str, hint: str = "leave it out") -> None:
    """Raise UsageError for an option that is given and has no meaning here."""
    from dit_tools.core.errors import UsageError

    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{option}: not with {beside}" if beside else f"{option}: not here", hint)


def _line(event: dict[str, Any]) -> str:
    return f"dit: {event['source']}: {event['width']}x{event['height']} in {event['seconds']:.2f} s"


command = make(decompress)
