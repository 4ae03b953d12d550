"""``dit methods``: lists, explains and cites every method."""

from __future__ import annotations

import json as json_format
import sys
import textwrap
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dit_cli._app import command as make
from dit_cli._method_options import first_line, rows
from dit_cli._method_options import methods as methods_of
from dit_cli._options import Json
from dit_tools.core.errors import UsageError


def _complete(incomplete: str) -> list[str]:
    from dit_tools.core.registry import CATEGORIES, names

    return sorted({*CATEGORIES, *(name for category in CATEGORIES for name in names(category))})


def methods(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CATEGORY|NAME",
            autocompletion=_complete,
            help="Categories such as caching or solver, or methods such as taylorseer.",
        ),
    ] = None,
    bib: Annotated[bool, typer.Option("--bib", help="Print the BibTeX entries of their papers.")] = False,
    json: Json = False,
) -> None:
    """List, explain and cite every method.

    Without arguments all methods are listed by category; with categories, the methods of these. A
    method given by name is explained: what it does, its parameters with their defaults and bounds,
    what it needs from the model, and its paper.
    """
    if bib and json:
        raise UsageError("--bib and --json exclude each other", "give one of them")
    names, found = _select(words or [])
    if bib:
        from dit_tools.core.citations import bibtex

        sys.stdout.write(bibtex(cls.info for cls in found))
    elif json:
        for cls in found:
            print(json_format.dumps(as_object(cls), ensure_ascii=False))
    elif names:
        print("\n".join(explain(cls) for cls in found), end="")
    else:
        print("\n".join(_sections(found)), end="")


def _select(words: Sequence[str]) -> tuple[list[str], list[type[Any]]]:
    """The words that name methods, and the methods that all words together mean."""
    from dit_tools.core.registry import CATEGORIES, display, nearest

    spelt = {flag.lstrip("-"): category for category, flag in CATEGORIES.items()}
    spelt |= {flag: category for category, flag in CATEGORIES.items()} | {category: category for category in CATEGORIES}
    categories = [spelt[word] for word in words if word in spelt]
    names = [display(word) for word in words if word not in spelt]
    everything = [cls for category in categories or CATEGORIES for cls in methods_of(category)]
    known = sorted({cls.info.name for cls in everything})
    for name in names:
        if name not in known:
            where = f" in {', '.join(categories)}" if categories else ""
            message = f"no method or category {name!r}{where}"
            hint = nearest(name, [*known, *CATEGORIES])
            raise UsageError(message, hint if hint.startswith("did you") else "see 'dit methods' for all of them")
    return names, [cls for cls in everything if not names or cls.info.name in names]


def _sections(found: Sequence[type[Any]]) -> list[str]:
    """One block of text per category: its name and option, then its methods."""
    categories: dict[str, list[type[Any]]] = {}
    for cls in found:
        categories.setdefault(cls.info.category, []).append(cls)
    return [f"{category} ({classes[0].info.flag})\n{rows(classes, '  ')}" for category, classes in categories.items()]


STACK = " (PyTorch, or split ONNX graphs: dit export --split)"


def explain(cls: type[Any]) -> str:
    """Everything about one method, as text."""
    from dit_tools.core.spec import describe, format_value

    info = cls.info
    lines = [f"{info.flag} {info.name}", "", describe(cls).rstrip()]
    if info.authors:
        lines += textwrap.wrap(f"Authors: {info.authors}", 79)
    needs = ", ".join(sorted(info.needs)) or "nothing special"
    lines.append(f"Needs: {needs}{STACK if 'stack' in info.needs else ''}")
    if info.identity is not None:
        at = ", ".join(f"{name}={format_value(value)}" for name, value in info.identity.items())
        lines.append(f"Changes nothing at: {at or 'any setting'}")
    return "\n".join(lines) + "\n"


def as_object(cls: type[Any]) -> dict[str, Any]:
    """A method as one JSON object."""
    from dit_tools.core.spec import parameters

    info = cls.info
    return {
        "category": info.category,
        "name": info.name,
        "flag": info.flag,
        "summary": first_line(cls),
        "paper": info.paper,
        "title": info.title,
        "authors": info.authors,
        "year": info.year or None,
        "needs": sorted(info.needs),
        "identity": None if info.identity is None else dict(info.identity),
        "parameters": [
            {
                "name": p.name,
                "type": type_name(p),
                "default": p.default,
                "help": p.help,
                "ge": p.ge,
                "gt": p.gt,
                "le": p.le,
                "choices": list(p.choices),
            }
            for p in parameters(cls)
        ],
    }


def type_name(parameter: Any) -> str:
    """The type of a parameter in words: ``int``, ``float|none``, ``range``."""
    words = {type(None): "none", tuple[float, float]: "range"}
    return "|".join(words.get(kind) or kind.__name__ for kind in parameter.types)


command = make(methods)
