"""``dit invert``: from pictures to the noise that makes them."""

from __future__ import annotations

from typing import Annotated

import typer

from dit_cli import choices
from dit_cli import options as o
from dit_cli.command import command as make

Pictures = Annotated[
    list[str], typer.Argument(metavar="PICTURE...", help="Pictures, or folders of them.")
]
Prompt = Annotated[
    str | None,
    typer.Option("-p", "--prompt", metavar="TEXT", rich_help_panel=o.PICTURE,
                 help="What the pictures show."),
]  # fmt: skip
Precision = Annotated[
    str,
    typer.Option("--precision", metavar="NAME", rich_help_panel=o.PLACE,
                 help="Of the latents: float64 or float32."),
]  # fmt: skip


def invert(
    pictures: Pictures,
    prompt: Prompt = None,
    negative_prompt: o.NegativePrompt = None,
    seed: o.Seed = None,
    size: o.Size = None,
    width: o.Width = None,
    height: o.Height = None,
    steps: o.Steps = None,
    cfg_scale: o.CfgScale = None,
    embedded_guidance: o.EmbeddedGuidance = None,
    max_tokens: o.MaxTokens = None,
    model: o.Model = None,
    lora: o.Lora = None,
    inversion: choices.Inversion = None,
    schedule: choices.Schedule = None,
    guidance: choices.Guidance = None,
    precision: Precision = "float64",
    device: o.Device = None,
    dtype: o.Dtype = None,
    backend: o.Backend = None,
    output: o.Output = None,
    overwrite: o.Overwrite = False,
    skip_existing: o.SkipExisting = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Find the noise that a picture comes from.

    Writes NAME.latent, a safetensors file with the latents and all that leads back: 'dit generate
    --from-latent NAME.latent' makes the picture again, or another one with a new prompt. Every
    file is checked: the PSNR of the way back is printed beside that of the autoencoder alone,
    which no inversion can exceed. Guidance is off unless --cfg-scale says otherwise, as it makes
    inexact methods far worse.
    """
    given = locals()
    from dit_cli import telling
    from dit_tools.generating.options import OPTIONS
    from dit_tools.inverting.invert import Request, assemble

    values = {name: given[name] for name in OPTIONS if given.get(name) not in (None, (), [])}
    plain = telling.emitter(json)

    def listen(event):
        plain(event)
        if not json and not quiet and event["type"] == "item":
            telling.say(_line(event))

    with telling.told(json):
        telling.check_stdout(output, json)
        request = Request(pictures, prompt or "", values, inversion or "edict", precision, output,
                          overwrite, skip_existing, quiet)  # fmt: skip
        batch = assemble(request, listen)
    return telling.finish(batch.start(), quiet)


def _line(event) -> str:
    note = f"{event['note']}; " if event.get("note") else ""
    return (
        f"dit: {event['source']}: {note}round trip {event['psnr']:.2f} dB (autoencoder alone "
        f"{event['psnr_autoencoder']:.2f}), latent error {event['latent_error']:.1e}, "
        f"{event['calls_invert']} + {event['calls_back']} network calls"
    )


command = make(invert)
