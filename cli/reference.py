"""The page ``docs/methods.md``, written from the same objects as ``dit methods``.

``python -m dit_cli.manpages`` writes it together with the man pages and compares it with ``--check``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from dit_cli.methods import STACK
from dit_tools.core import registry, spec

HEAD = """<!-- Written by python -m dit_cli.manpages; do not edit. -->

# Methods

Every choice of every method option, by category. `dit methods NAME` prints the same on the terminal, `dit methods
--bib` the references, and `--cache help` the methods of an option. A method takes parameters after a colon:
`--cache taylorseer:interval=4,order=1`.
"""


def page() -> str:
    """The whole page as Markdown, without installed plugins."""
    parts = [HEAD]
    for category, flag in registry.CATEGORIES.items():
        parts.append(f"\n## `{flag}` ({category.replace('_', ' ')})\n")
        for name in registry.names(category):
            parts.append("\n" + "\n".join(_method(registry.get(category, name))) + "\n")
    return "".join(parts)


def _method(cls: Any) -> Iterator[str]:
    info = cls.info
    yield f"### `{info.name}`"
    yield ""
    yield from _paragraphs(cls)
    rows = [
        f"| `{p.name}` | `{spec.format_value(p.default)}` | {_cell(p.bounds)} | {_cell(p.help)} |"
        for p in spec.parameters(cls)
    ]
    if rows:
        yield from ("", "| parameter | default | range | meaning |", "|---|---|---|---|", *rows)
    facts = []
    if info.needs:
        facts.append(f"Needs: {', '.join(sorted(info.needs))}{STACK if 'stack' in info.needs else ''}.")
    if info.identity:
        at = ", ".join(f"`{name}={spec.format_value(value)}`" for name, value in info.identity.items())
        facts.append(f"Changes nothing at {at}.")
    if info.paper:
        facts.append(f"Paper: {info.title}, {info.paper}.")
    if facts:
        yield from ("", *_wrapped(" ".join(facts)))


def _paragraphs(cls: Any) -> Iterator[str]:
    for index, part in enumerate(inspect.cleandoc(cls.__doc__ or "").split("\n\n")):
        yield from ([""] if index else [])
        if part.startswith("    ") or "\n    " in part:  # a formula or a drawing
            yield from ("```text", *part.splitlines(), "```")
        else:
            yield from _wrapped(" ".join(part.replace("``", "`").split()))


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")
