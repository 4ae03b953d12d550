"""``dit restore``: take noise, compression and blur out of photographs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dit_cli import _options as o
from dit_cli import _photo_options as p
from dit_cli._app import command as make

Task = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="NAME",
        rich_help_panel=o.PICTURE,
        help="auto, denoise, deblock or deblur: one network does all of them (default: auto).",
    ),
]


def restore(images: p.Photographs, task: Task = "auto", **given: Any) -> int:
    """Take noise, JPEG compression and blur out of photographs.

    Writes NAME-restored.png, or what -o says, in the photograph's own size and depth. The network
    is blind: it sees by itself what is wrong, and how much. Transparency, colour profile and EXIF
    are kept, and a grey photograph stays grey. Into a folder, a run that was stopped goes on where
    it stopped.
    """
    from dit_tools.tasks.photo.restore import Request, assemble

    return p.start(assemble, Request(images, task=task, **p.fields(given)), given)


command = make(restore, p.Network)
