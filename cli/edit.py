"""``dit edit``: edit images by prompt, mask or box. The work is in ``dit_tools.tasks.edit``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dit_cli import _method_options, _option_groups
from dit_cli import _options as o
from dit_cli._app import command as make

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="Image to edit, or a folder of images.")]
Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="Prompt that describes the edited image.")]
PromptOption = Annotated[
    str | None,
    typer.Option(
        "-p",
        "--prompt",
        metavar="TEXT",
        rich_help_panel=o.IMAGE,
        help="Prompt that describes the edited image, as an option.",
    ),
]
SourcePrompt = Annotated[
    str,
    typer.Option(
        "--source-prompt", metavar="TEXT", rich_help_panel=o.IMAGE, help="Prompt that describes the original image."
    ),
]
Instructions = Annotated[
    str | None,
    typer.Option(
        "--instructions",
        metavar="FILE",
        rich_help_panel=o.IMAGE,
        help="Read edits from a .csv or .jsonl file with the columns image, prompt, mask and other options.",
    ),
]
Mask = Annotated[
    str | None,
    typer.Option(
        "--mask",
        metavar="FILE|X,Y,W,H",
        rich_help_panel=o.IMAGE,
        help="Region that may change: a mask image (white may change) or a box in pixels.",
    ),
]
MaskText = Annotated[
    str | None,
    typer.Option(
        "--mask-text",
        metavar="WORDS",
        rich_help_panel=o.IMAGE,
        help="Region that may change: the part of the image that these words name.",
    ),
]
Outpaint = Annotated[
    str | None,
    typer.Option(
        "--outpaint",
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        rich_help_panel=o.IMAGE,
        help="Extend the image by margins of this many pixels.",
    ),
]
SourceModel = Annotated[
    str | None,
    typer.Option(
        "--source-model",
        metavar="MODEL",
        rich_help_panel=o.MODEL,
        help="Invert with this model and edit with --model (default: the same model).",
    ),
]
Feather = Annotated[
    int | None,
    typer.Option(
        "--feather",
        metavar="PIXELS",
        min=0,
        rich_help_panel=o.IMAGE,
        help="Width of the blended border inside the mask (default: a 64th of the shorter side).",
    ),
]
Detail = Annotated[
    bool,
    typer.Option(
        "--keep-detail/--no-keep-detail",
        rich_help_panel=o.IMAGE,
        help="Copy fine detail from the original where the edit changes little.",
    ),
]
Reference = Annotated[
    list[str] | None,
    typer.Option(
        "--reference",
        metavar="IMAGE",
        rich_help_panel=o.IMAGE,
        help="Reference image, for methods that take one; may be given several times.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        metavar="0..1",
        rich_help_panel=o.IMAGE,
        help="How much to change; 0 changes nothing (default: the method's own).",
    ),
]
NoCrop = Annotated[
    bool,
    typer.Option(
        "--no-crop", rich_help_panel=o.IMAGE, help="Process the whole image instead of a crop around the mask."
    ),
]


def edit(
    picture: Image,
    prompt: Prompt = None,
    prompt_option: PromptOption = None,
    source_prompt: SourcePrompt = "",
    instructions: Instructions = None,
    mask: Mask = None,
    mask_text: MaskText = None,
    outpaint: Outpaint = None,
    feather: Feather = None,
    no_crop: NoCrop = False,
    keep_detail: Detail = True,
    strength: Strength = None,
    reference: Reference = None,
    method: _method_options.Editing = None,
    inversion: _method_options.EditInversion = None,
    source_model: SourceModel = None,
    steer: _method_options.SeedSearch = None,
    protect: _method_options.Protection = None,
    combine: _method_options.NoCombine = None,
    **given: Any,
) -> int:
    """Edit an image and keep everything that the edit does not concern.

    Writes NAME-edit to the current folder, or to the path that -o gives, with the size, bit depth
    and colour profile of the original. With --mask only the white region changes, and every pixel
    outside it stays bit for bit the same. Without a mask the model processes the whole image at
    the model's own size. With --protect no edit is made; instead NAME-safe is written, which looks
    the same and resists editing by diffusion models.
    """
    from dit_cli import _output
    from dit_tools.core.errors import UsageError
    from dit_tools.tasks import protect as protection
    from dit_tools.tasks.edit import task

    assemble = protection.plan_protection if protect else task.plan_edit
    with _output.report_errors(given["json"]):
        _output.check_stdout(given["output"], given["json"])
        if prompt is not None and prompt_option is not None:
            raise UsageError("the prompt is given twice, as an argument and with --prompt", "give it once")
        request = task.Request(
            picture,
            prompt if prompt is not None else prompt_option,
            source_prompt,
            _option_groups.values(given, combine=combine),
            instructions,
            method,
            inversion,
            strength,
            mask,
            feather,
            not no_crop,
            given["output"],
            given["overwrite"],
            given["skip_existing"],
            not given["no_metadata"],
            given["quiet"],
            reference or (),
            steer,
            protect,
            mask_text,
            outpaint,
            source_model,
            keep_detail,
        )
        batch = assemble(request, _output.announcer(given["json"], given["quiet"], _line))
    return _output.finish(batch.start(), given["quiet"])


def _line(event) -> str:
    names = {"psnr": "whole image", "psnr_outside": "outside the mask", "psnr_inside": "inside the mask"}
    shown = ", ".join(
        f"{name} {'unchanged' if event[key] >= 200 else f'{event[key]:.1f} dB'}"
        for key, name in names.items()
        if key in event
    )
    note = f"{event['note']}; " if event.get("note") else ""
    return f"dit: {event['source']}: {note}{event['method']}, {event['calls']} calls; {shown}"


command = make(edit, _option_groups.ImageOptions)
