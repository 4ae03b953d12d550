"""``dit degrade``: spoil photographs on purpose."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dit_cli import _options as o
from dit_cli import _photo_options as p
from dit_cli._app import command as make

Degrade = Annotated[
    str,
    typer.Option(
        "--degrade",
        metavar="STEP[+STEP...]",
        rich_help_panel=o.IMAGE,
        help="Steps, such as blur:sigma=1+jpeg:quality=20..60; see 'dit methods degradation'.",
    ),
]
Seed = Annotated[
    int,
    typer.Option("--seed", "-s", metavar="N", rich_help_panel=o.IMAGE, help="Seed of the random numbers (default: 0)."),
]


def degrade(images: p.Photographs, degrade: Degrade = "noise", seed: Seed = 0, **given: Any) -> int:
    """Spoil photographs on purpose, for training pairs and benchmarks.

    Writes NAME-degraded.png, or what -o says. A range such as sigma=5..50 is drawn for every
    photograph from the seed and the file's name, so that the same command spoils equally again.
    """
    from dit_tools.tasks.photo.degrade import Request, assemble

    return p.start(assemble, Request(images, degrade=degrade, seed=seed, **p.fields(given)), given)


command = make(degrade, p.Files)
