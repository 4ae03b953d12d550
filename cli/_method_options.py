"""A method category as an option: ``--cache NAME[:KEY=VALUE,...]``, ``--cache help``, ``--cache NAME:help``.

The option's value stays the text that the user gave, checked: the method and its parameters exist
and are in bounds. Nothing heavy is imported for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from dit_cli._options import METHODS
from dit_tools.core.errors import UsageError

METAVAR = "NAME[:K=V,...]"


def _check_each(category: str) -> Callable[..., list[str] | None]:
    def check(ctx: typer.Context, values: list[str] | None) -> list[str] | None:
        for value in values or ():
            _check(category)(ctx, value)
        return values

    return check


def _check(category: str, file: str = "") -> Callable[..., str | None]:
    """Checks a value; one that ends in ``file`` is a path and not a method."""

    def check(ctx: typer.Context, value: str | None) -> str | None:
        if value is None or ctx.resilient_parsing or (file and value.endswith(file)):
            return value
        from dit_tools.core import registry, spec

        name, _, rest = value.strip().partition(":")
        presets = registry.presets(category)
        if name in ("help", "list"):
            typer.echo(rows(methods(category)), nl=False)
            for word, meant in presets.items():
                typer.echo(f"  {word} = {meant}, or the setting measured on the model")
        elif rest.strip() == "help":
            meant = presets.get(name, name).partition(":")[0]
            typer.echo(spec.describe(registry.get(category, meant)), nl=False)
        else:
            if category == "guidance" and re.fullmatch(r"\d+(\.\d*)?", name):
                raise UsageError(
                    f"--guidance {name}: is a method, not a scale", f"did you mean --cfg-scale {float(name):g}?"
                )
            spec.parse(category, value)
            return value
        raise typer.Exit

    return check


def _complete(category: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        from dit_tools.core import registry, spec

        name, colon, rest = incomplete.partition(":")
        if not colon:
            own = [*registry.presets(category), *registry.names(category)]
            return [*own, *registry.plugin_names(category)]
        done = incomplete[: len(incomplete) - len(rest.rpartition(",")[2])]
        return [f"{done}{p.name}=" for p in spec.parameters(registry.get(category, name))]

    return complete


def methods(category: str) -> list[type[Any]]:
    """The method classes of a category, its own and those of installed packages, sorted by name."""
    from dit_tools.core import registry

    names = sorted({*registry.names(category), *registry.plugin_names(category)})
    return [registry.get(category, name) for name in names]


def first_line(cls: type[Any]) -> str:
    """The summary of a method: the first paragraph of its docstring in one line."""
    import inspect

    text = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0]
    return " ".join(text.replace("``", "").split())


def rows(found: Sequence[type[Any]], indent: str = "") -> str:
    """Name and summary of each method, wrapped to the terminal's width, at most 80 columns."""
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


def _option(flag: str, category: str, text: str, file: str = "") -> Any:
    return typer.Option(
        flag,
        metavar=METAVAR,
        help=text,
        callback=_check(category, file),
        autocompletion=_complete(category),
        rich_help_panel=METHODS,
    )


Schedule = Annotated[str | None, _option("--schedule", "schedules", "Timestep schedule (default: the model's own).")]
Solver = Annotated[
    str | None, _option("--solver", "solvers", "Solver that integrates from noise to image (default: the model's own).")
]
Guidance = Annotated[
    str | None, _option("--guidance", "guidance", "Guidance method: CFG and its variants (default: cfg).")
]
Noise = Annotated[str | None, _option("--noise", "noise", "Noise generator (default: philox).")]
Cache = Annotated[
    str | None, _option("--cache", "caching", "Reuse network outputs between steps to save time (default: none).")
]
Attention = Annotated[
    str | None, _option("--attention", "sparse_attention", "Sparse attention method (default: none).")
]
Tokens = Annotated[
    str | None,
    _option(
        "--tokens", "token_reduction", "Token reduction method, which computes fewer image tokens (default: none)."
    ),
]
HighRes = Annotated[
    str | None, _option("--highres", "highres", "Method for sizes beyond the training resolution (default: none).")
]
Combine = Annotated[
    str | None, _option("--combine", "composition", "Composition of two models or two prompts (default: none).")
]
NoCombine = Annotated[
    str | None, typer.Option("--combine", metavar=METAVAR, hidden=True, callback=_check("composition"))
]
Scheme = Annotated[
    str | None, _option("--scheme", "quantization", "Quantization scheme for the weights (default: rtn).")
]
Format = Annotated[str | None, _option("--target", "formats", "Format to write (default: folder).")]
Inversion = Annotated[
    str | None, _option("--inversion", "inversion", "Inversion method, from image to noise (default: edict).")
]
EditInversion = Annotated[
    str | None,
    _option("--inversion", "inversion", "Inversion method or a .latent file (default: ddim).", file=".latent"),
]
Editing = Annotated[
    str | None, _option("--method", "editing", "Editing method (default: inpaint with a mask, otherwise flowedit).")
]
Restoration = Annotated[
    str | None,
    _option("--method", "restoration", "Zero-shot restoration method, with a text-to-image model (default: ddnm)."),
]
Codec = Annotated[str | None, _option("--method", "codecs", "Image codec (default: wavelet).")]
SeedSearch = Annotated[
    str | None, _option("--steer", "seed_search", "Seed search: start several seeds and finish the best one.")
]
Protection = Annotated[str | None, _option("--protect", "protection", "Protect the image against AI editing.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        metavar=METAVAR,
        callback=_check_each("metrics"),
        autocompletion=_complete("metrics"),
        help="Metric to compute; may be given several times; 'help' lists them.",
    ),
]
Adapter = Annotated[
    str | None, _option("--adapter", "adapters", "Adapter method, in place of the recipe's (default: lora).")
]
Objectives = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        metavar=METAVAR,
        callback=_check_each("objectives"),
        autocompletion=_complete("objectives"),
        help="Training objective in addition to the recipe's; may be given several times; 'help' lists them.",
    ),
]
