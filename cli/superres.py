"""``dit superres``: make photographs larger."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dit_cli import _options as o
from dit_cli import _photo_options as p
from dit_cli._app import command as make

Scale = Annotated[
    float | None,
    typer.Option("--scale", metavar="X", rich_help_panel=o.IMAGE, help="Factor of both sides, up to 64 (default: 4)."),
]
Size = Annotated[
    str | None,
    typer.Option("--size", metavar="WxH", rich_help_panel=o.IMAGE, help="As large as fits into this size, in pixels."),
]
Megapixels = Annotated[
    float | None,
    typer.Option("--megapixels", metavar="N", rich_help_panel=o.IMAGE, help="As many million pixels as this."),
]


def superres(
    images: p.Photographs, scale: Scale = None, size: Size = None, megapixels: Megapixels = None, **given: Any
) -> int:
    """Make photographs larger.

    Writes NAME-superres.png, or what -o says. A network adds detail to the cubic enlargement, in
    tiles that join without a seam. Depth, transparency, colour profile and EXIF are kept, and a
    grey photograph stays grey. Into a folder, a run that was stopped goes on where it stopped.
    """
    from dit_tools.tasks.photo.superres import Request, assemble

    request = Request(images, scale=scale, size=size, megapixels=megapixels, **p.fields(given))
    return p.start(assemble, request, given)


command = make(superres, p.Network)
