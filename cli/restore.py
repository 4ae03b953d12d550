"""``dit restore``: noise and compression out of photographs, and what is missing into them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dit_cli import _method_options
from dit_cli import _options as o
from dit_cli import _photo_options as p
from dit_cli._app import command as make

Task = Annotated[
    str,
    typer.Option(
        "--task",
        metavar="NAME",
        rich_help_panel=o.IMAGE,
        help="auto, denoise or deblock, which one network does; inpaint or colorize, for which -m "
        "names a text-to-image model.",
    ),
]
Mask = Annotated[
    str | None,
    typer.Option(
        "--mask",
        metavar="PATH|X,Y,W,H",
        rich_help_panel=o.IMAGE,
        help="inpaint: what is missing, white; a file, a folder of files of the same names, or a box in pixels.",
    ),
]
SAMPLING = ("prompt", "negative_prompt", "seed", "steps", "cfg_scale", "backend", "method", "mask")


class Restoring(p.Network):
    """A network for photographs, or a text-to-image model."""

    prompt: o.Prompt
    negative_prompt: o.NegativePrompt
    seed: o.Seed
    steps: o.Steps
    cfg_scale: o.CfgScale
    backend: o.Backend
    method: _method_options.Restoration


def restore(images: p.Photographs, task: Task = "auto", mask: Mask = None, **given: Any) -> int:
    """Remove noise and JPEG artifacts from photographs, or fill in what is missing.

    Writes NAME-restored.png, or what -o says, in the photograph's own size and depth. The built-in
    network is blind: it sees by itself what is wrong, and how much. Transparency, colour profile
    and EXIF are kept, and a grey photograph stays grey. Into a folder, a run that was stopped
    continues where it stopped. With --task inpaint or colorize a text-to-image model completes the
    photograph: outside the mask every pixel stays as it is, and so does the brightness of what is
    coloured.
    """
    from dit_tools.core.errors import UsageError
    from dit_tools.tasks.photo import restore as network
    from dit_tools.tasks.photo import zero_shot

    given["mask"] = mask
    sampling = {name: given.pop(name) for name in SAMPLING}
    if task not in zero_shot.TASKS:
        for name, value in sampling.items():
            if value is not None:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag}: not for --task {task}", f"it is for {' and '.join(zero_shot.TASKS)}")
        return p.start(network.assemble, network.Request(images, task=task, **p.fields(given)), given)
    for name in ("strength", "tile"):
        if given.pop(name) is not None:
            raise UsageError(f"--{name}: not for --task {task}", "leave it out")
    own = {name: sampling.pop(name) for name in ("prompt", "method", "mask")}
    values = {**sampling, **{name: given.pop(name) for name in ("model", "device", "dtype")}}
    request = zero_shot.Request(
        images,
        task=task,
        mask=own["mask"],
        prompt=own["prompt"] or "",
        method=own["method"] or zero_shot.DEFAULT_METHOD,
        values={name: value for name, value in values.items() if value is not None},
        **p.fields(given),
    )
    return p.start(zero_shot.assemble, request, given)


command = make(restore, Restoring)
