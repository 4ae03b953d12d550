"""``dit compress``: images to small files. The work is in ``dit_tools.tasks.compress``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dit_cli import _method_options, decompress
from dit_cli import _options as o
from dit_cli._app import command as make

RATE = "Size and quality (at most one)"
Images = Annotated[
    list[str], typer.Argument(metavar="IMAGE...", help="Images, or folders of them; - reads one from stdin.")
]
Bpp = Annotated[
    float | None,
    typer.Option("--bpp", metavar="BITS", rich_help_panel=RATE, help="At most so many bits a pixel, such as 0.25."),
]
Quality = Annotated[
    float | None, typer.Option("--quality", metavar="0..100", rich_help_panel=RATE, help="Quality (default: 50).")
]
TargetSize = Annotated[
    str | None,
    typer.Option("--target-size", metavar="SIZE", rich_help_panel=RATE, help="At most so much a file, such as 20kB."),
]
MinPsnr = Annotated[
    float | None,
    typer.Option("--min-psnr", metavar="DB", rich_help_panel=RATE, help="The smallest file of at least so many dB."),
]
Decode = Annotated[bool, typer.Option("--decode", help="The opposite, as 'dit decompress'.", rich_help_panel=o.RUN)]
Compare = Annotated[
    str,
    typer.Option(
        "--compare",
        metavar="FORMATS",
        rich_help_panel=o.RUN,
        help="Write NAME-compare.png: jpeg,webp,avif at the same bytes.",
    ),
]


def compress(
    pictures: Images,
    bpp: Bpp = None,
    quality: Quality = None,
    target_size: TargetSize = None,
    min_psnr: MinPsnr = None,
    method: _method_options.Codec = None,
    decode: Decode = False,
    thumbnail: decompress.Thumbnail = None,
    strip: decompress.Strip = False,
    compare: Compare = "",
    format: o.Format = None,  # noqa: A002
    device: o.Device = None,
    backend: o.Backend = None,
    output: o.Output = None,
    overwrite: o.Overwrite = False,
    skip_existing: o.SkipExisting = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Make small .dit files of images.

    Writes NAME.dit where you are, or what -o says; 'dit decompress' makes the image again, on any
    machine. Colour profile, EXIF and transparency are kept (transparency without loss), samples of
    16 bits become 8. Sizes are for the whole file: --bpp and --target-size are never exceeded, and
    kept within 3 percent wherever the image has more than a few hundred bytes to give. With --json
    every file is decoded again, and its PSNR and MS-SSIM are told.
    """
    goal = {"--bpp": bpp, "--quality": quality, "--target-size": target_size, "--min-psnr": min_psnr}
    given: dict[str, Any] = {
        "output": output,
        "overwrite": overwrite,
        "skip_existing": skip_existing,
        "quiet": quiet,
        "strip": strip,
    }
    place = decompress.place(device, backend)
    if decode:
        decompress.refuse({**goal, "--method": method, "--compare": compare or None}, "--decode")
        return decompress.start(pictures, json, thumbnail=thumbnail, format=format, **given, **place)
    decompress.refuse({"--thumbnail": thumbnail, "--format": format}, "", "it is for --decode")
    from dit_cli import _output
    from dit_tools.tasks.compress.compress import METHOD, Request, assemble
    from dit_tools.tasks.compress.rate import Goal

    with _output.report_errors(json):
        _output.check_stdout(output or ("-" if list(pictures) == ["-"] else None), json)
        formats = [word.strip() for word in compare.split(",") if word.strip()]
        request = Request(
            pictures,
            Goal(quality, bpp, target_size, min_psnr),
            method or METHOD,
            compare=formats,
            measured=json,
            **given,
            **place,
        )
        batch = assemble(request, _output.announcer(json, quiet, _line))
    return _output.finish(batch.start(), quiet)


def _line(event: dict[str, Any]) -> str:
    note = f"{event['note']}; " if event.get("note") else ""
    quality = f", {event['psnr']:.2f} dB" if "psnr" in event else ""
    line = f"dit: {event['source']}: {note}{event['bytes']} bytes, {event['bpp']:.3f} bits a pixel{quality}"
    for row in event.get("compared", ()):
        similar = "" if row["ms_ssim"] is None else f" MS-SSIM {row['ms_ssim']:.4f}"
        line += f"; {row['format']} {row['bytes']} bytes {row['psnr']:.2f} dB{similar}"
    return line


command = make(compress)
