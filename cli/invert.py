"""``dit invert``: find the noise from which a model reproduces an image."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dit_cli import _method_options, _option_groups
from dit_cli import _options as o
from dit_cli._app import command as make

Images = Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images to invert, or folders of images.")]
Precision = Annotated[
    str,
    typer.Option(
        "--precision", metavar="NAME", rich_help_panel=o.HARDWARE, help="Precision of the latents: float64 or float32."
    ),
]


def invert(
    pictures: Images,
    prompt: o.Prompt = None,
    width: o.Width = None,
    height: o.Height = None,
    inversion: _method_options.Inversion = None,
    precision: Precision = "float64",
    combine: _method_options.NoCombine = None,
    **given: Any,
) -> int:
    """Find the noise from which a model reproduces an image.

    Writes NAME.latent, a safetensors file with the latents and everything needed to reverse the
    inversion: 'dit generate --from-latent NAME.latent' reconstructs the image, or makes a variant
    with a new prompt. Every file is checked: the PSNR of the reconstruction is printed together
    with that of the autoencoder alone, which no inversion can exceed. Guidance is off unless
    --cfg-scale is given, because it makes inexact methods much worse.
    """
    from dit_cli import _output
    from dit_tools.tasks.invert import Request, plan_inversion

    with _output.report_errors(given["json"]):
        _output.check_stdout(given["output"], given["json"])
        request = Request(
            pictures,
            prompt or "",
            _option_groups.values(given, width=width, height=height, combine=combine),
            inversion or "edict",
            precision,
            given["output"],
            given["overwrite"],
            given["skip_existing"],
            given["quiet"],
        )
        batch = plan_inversion(request, _output.announcer(given["json"], given["quiet"], _line))
    return _output.finish(batch.start(), given["quiet"])


def _line(event) -> str:
    note = f"{event['note']}; " if event.get("note") else ""
    return (
        f"dit: {event['source']}: {note}reconstruction {event['psnr']:.2f} dB (autoencoder alone "
        f"{event['psnr_autoencoder']:.2f}), latent error {event['latent_error']:.1e}, "
        f"{event['calls_invert']} + {event['calls_back']} network calls"
    )


command = make(invert, _option_groups.RunOptions)
