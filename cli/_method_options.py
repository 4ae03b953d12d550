"""A room as an option: ``--cache NAME[:KEY=VALUE,...]``, ``--cache help``, ``--cache NAME:help``.

The option's value stays the text that the user gave, checked: the method and its parameters exist
and are in bounds. Nothing heavy is imported for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from dit_cli._options import METHODS

METAVAR = "NAME[:K=V,...]"


def _check_each(room: str) -> Callable[..., list[str] | None]:
    def check(ctx: typer.Context, values: list[str] | None) -> list[str] | None:
        for value in values or ():
            _check(room)(ctx, value)
        return values

    return check


def _check(room: str, file: str = "") -> Callable[..., str | None]:
    """Checks a value; one that ends in ``file`` is a path and not a method."""

    def check(ctx: typer.Context, value: str | None) -> str | None:
        if value is None or ctx.resilient_parsing or (file and value.endswith(file)):
            return value
        from dit_tools.core import registry, spec

        name, _, rest = value.strip().partition(":")
        presets = registry.presets(room)
        if name in ("help", "list"):
            typer.echo(rows(methods(room)), nl=False)
            for word, meant in presets.items():
                typer.echo(f"  {word} = {meant}, or what was measured on the model")
        elif rest.strip() == "help":
            meant = presets.get(name, name).partition(":")[0]
            typer.echo(spec.describe(registry.get(room, meant)), nl=False)
        else:
            spec.parse(room, value)
            return value
        raise typer.Exit

    return check


def _complete(room: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        from dit_tools.core import registry, spec

        name, colon, rest = incomplete.partition(":")
        if not colon:
            own = [*registry.presets(room), *registry.names(room)]
            return [*own, *registry.plugin_names(room)]
        done = incomplete[: len(incomplete) - len(rest.rpartition(",")[2])]
        return [f"{done}{p.name}=" for p in spec.parameters(registry.get(room, name))]

    return complete


def methods(room: str) -> list[type[Any]]:
    """The room's method classes, its own and those of installed packages, sorted by name."""
    from dit_tools.core import registry

    names = sorted({*registry.names(room), *registry.plugin_names(room)})
    return [registry.get(room, name) for name in names]


def first_line(cls: type[Any]) -> str:
    """The summary of a method: the first paragraph of its docstring in one line."""
    import inspect

    text = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0]
    return " ".join(text.replace("``", "").split())


def rows(found: Sequence[type[Any]], indent: str = "") -> str:
    """A line or two a method: name and what it does, as wide as the terminal, at most 80."""
    import shutil
    import textwrap

    width = max(min(shutil.get_terminal_size().columns, 80), 40) - 1
    column = len(indent) + max((len(cls.info.name) for cls in found), default=0) + 2
    lines = [
        textwrap.fill(
            first_line(cls),
            width,
            break_on_hyphens=False,
            subsequent_indent=" " * column,
            initial_indent=f"{indent}{cls.info.name}".ljust(column),
        )
        for cls in found
    ]
    return "".join(line + "\n" for line in lines)


def _option(flag: str, room: str, text: str, file: str = "") -> Any:
    return typer.Option(
        flag,
        metavar=METAVAR,
        help=text,
        callback=_check(room, file),
        autocompletion=_complete(room),
        rich_help_panel=METHODS,
    )


Schedule = Annotated[str | None, _option("--schedule", "schedules", "At which times to call it.")]
Solver = Annotated[str | None, _option("--solver", "solvers", "How to step from noise to picture.")]
Guidance = Annotated[str | None, _option("--guidance", "guidance", "How to follow the prompt.")]
Noise = Annotated[str | None, _option("--noise", "noise", "Where random numbers come from.")]
Cache = Annotated[str | None, _option("--cache", "caching", "What to reuse between steps.")]
Attention = Annotated[str | None, _option("--attention", "sparse_attention", "Which tokens attend to which.")]
Tokens = Annotated[str | None, _option("--tokens", "token_reduction", "Which image tokens to compute.")]
HighRes = Annotated[str | None, _option("--highres", "highres", "How to go beyond the model's own size.")]
Combine = Annotated[str | None, _option("--combine", "composition", "How to use two models or two prompts at once.")]
Scheme = Annotated[str | None, _option("--scheme", "quantization", "How weights are packed; else rtn.")]
Target = Annotated[str | None, _option("--target", "formats", "What is written; else folder.")]
Inversion = Annotated[str | None, _option("--inversion", "inversion", "How to get from picture to noise; else edict.")]
EditInversion = Annotated[
    str | None, _option("--inversion", "inversion", "The same, or a file of 'dit invert'; else ddim.", file=".latent")
]
Editing = Annotated[str | None, _option("--method", "editing", "How to edit; else inpaint or flowedit.")]
Steering = Annotated[str | None, _option("--steer", "seed_search", "Try several seeds, and finish the best.")]
Protecting = Annotated[str | None, _option("--protect", "protection", "Change it so that edits of it fail.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar=METAVAR,
        callback=_check_each("metrics"),
        autocompletion=_complete("metrics"),
        help="What to measure; may be repeated; 'help' lists them.",
    ),
]
Adapter = Annotated[str | None, _option("--adapter", "adapters", "How the recipe's model is adapted; else lora.")]
Objectives = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        metavar=METAVAR,
        callback=_check_each("objectives"),
        autocompletion=_complete("objectives"),
        help="What to train for, beside the recipe's; may be repeated; 'help' lists them.",
    ),
]
