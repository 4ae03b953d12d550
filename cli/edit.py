"""``dit edit``: change a picture by words. The work is in ``dit_tools.methods.editing``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dit_cli import _method_options, _option_groups
from dit_cli import _options as o
from dit_cli._app import command as make

Picture = Annotated[str, typer.Argument(metavar="PICTURE", help="A picture, or a folder of them.")]
Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="What it shall show afterwards.")]
PromptOption = Annotated[
    str | None,
    typer.Option("-p", "--prompt", metavar="TEXT", rich_help_panel=o.PICTURE, help="The same, as an option."),
]
SourcePrompt = Annotated[
    str, typer.Option("--source-prompt", metavar="TEXT", rich_help_panel=o.PICTURE, help="What it shows now.")
]
Instructions = Annotated[
    str | None,
    typer.Option(
        "--instructions",
        metavar="FILE",
        rich_help_panel=o.PICTURE,
        help="Edits from .csv or .jsonl: picture, prompt, mask, ...",
    ),
]
Mask = Annotated[
    str | None,
    typer.Option(
        "--mask", metavar="FILE|X,Y,W,H", rich_help_panel=o.PICTURE, help="What may change: white, or a box in pixels."
    ),
]
MaskText = Annotated[
    str | None,
    typer.Option(
        "--mask-text", metavar="WORDS", rich_help_panel=o.PICTURE, help="What may change: what these words name."
    ),
]
Outpaint = Annotated[
    str | None,
    typer.Option(
        "--outpaint", metavar="LEFT,TOP,RIGHT,BOTTOM", rich_help_panel=o.PICTURE, help="Add margins of so many pixels."
    ),
]
SourceModel = Annotated[
    str | None,
    typer.Option(
        "--source-model", metavar="MODEL", rich_help_panel=o.MODEL, help="Invert by this model, edit by the other."
    ),
]
Feather = Annotated[
    int | None,
    typer.Option(
        "--feather", metavar="PIXELS", min=0, rich_help_panel=o.PICTURE, help="Width of the seam inside the mask."
    ),
]
Detail = Annotated[
    bool,
    typer.Option(
        "--keep-detail/--no-keep-detail",
        rich_help_panel=o.PICTURE,
        help="Keep fine detail where the edit changes little.",
    ),
]
Reference = Annotated[
    list[str] | None,
    typer.Option(
        "--reference", metavar="PICTURE", rich_help_panel=o.PICTURE, help="Another picture, for methods that take one."
    ),
]
Strength = Annotated[
    float | None,
    typer.Option("--strength", metavar="0..1", rich_help_panel=o.PICTURE, help="How much to change; 0 is nothing."),
]
Whole = Annotated[
    bool, typer.Option("--no-crop", rich_help_panel=o.PICTURE, help="Work on the whole picture, not around the mask.")
]


def edit(
    picture: Picture,
    prompt: Prompt = None,
    prompt_option: PromptOption = None,
    source_prompt: SourcePrompt = "",
    instructions: Instructions = None,
    mask: Mask = None,
    mask_text: MaskText = None,
    outpaint: Outpaint = None,
    feather: Feather = None,
    no_crop: Whole = False,
    keep_detail: Detail = True,
    strength: Strength = None,
    reference: Reference = None,
    method: _method_options.Editing = None,
    inversion: _method_options.EditInversion = None,
    source_model: SourceModel = None,
    steer: _method_options.Steering = None,
    protect: _method_options.Protecting = None,
    **given: Any,
) -> int:
    """Change what a picture shows, and keep the rest.

    Writes NAME-edit beside where you are, or what -o says, in the picture's own size, depth and
    colour profile. With --mask only the white part changes: outside it every pixel stays as it
    is, bit for bit. Without one the model sees the whole picture at its own size. With --protect
    it makes no edit, but NAME-safe, which looks the same and resists edits by such models.
    """
    from dit_cli import _output
    from dit_tools.core.errors import UsageError
    from dit_tools.tasks import protect as protection
    from dit_tools.tasks.edit import task

    assemble = protection.assemble if protect else task.assemble
    with _output.told(given["json"]):
        _output.check_stdout(given["output"], given["json"])
        if prompt is not None and prompt_option is not None:
            raise UsageError("--prompt: a prompt is given already", "give one")
        request = task.Request(
            picture,
            prompt if prompt is not None else prompt_option,
            source_prompt,
            _option_groups.values(given),
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
    names = {"psnr": "whole", "psnr_outside": "outside the mask", "psnr_inside": "inside"}
    shown = ", ".join(
        f"{name} {'unchanged' if event[key] >= 200 else f'{event[key]:.1f} dB'}"
        for key, name in names.items()
        if key in event
    )
    note = f"{event['note']}; " if event.get("note") else ""
    return f"dit: {event['source']}: {note}{event['method']}, {event['calls']} calls; {shown}"


command = make(edit, _option_groups.Pictures)
