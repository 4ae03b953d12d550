"""BibTeX of methods, from what their files state about their papers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dit_tools.core.registry import MethodInfo

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
SMALL = {"a", "an", "the", "on", "of", "for", "to", "in", "from", "with", "and"}


def bibtex(infos: Iterable[MethodInfo]) -> str:
    """One entry a paper, in the order given; methods of common knowledge have none.

    Papers that would share a key get letters, as ``liu2025forecasting``, ``liu2025forecastingb``.
    """
    papers = {info.paper or info.title: info for info in infos if info.paper or info.title}
    taken: dict[str, int] = {}
    entries: list[str] = []
    for info in papers.values():
        name = key(info)
        taken[name] = taken.get(name, 0) + 1
        entries.append(_entry(info, name + ("", *"bcdefghijk")[taken[name] - 1]))
    return "\n".join(entries)


def key(info: MethodInfo) -> str:
    """Family name of the first author, year, first word of the title that says something."""
    author = _letters(info.authors.partition(",")[0]) or _letters(info.name)
    words = [_letters(word) for word in re.split(r"[\s:-]+", info.title)]
    word = next((word for word in words if word and word not in SMALL), "")
    return f"{author}{info.year or ''}{word}"


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _entry(info: MethodInfo, name: str) -> str:
    scheme, _, number = info.paper.partition(":")
    scheme = scheme.lower()
    fields = {
        "title": "{" + _tex(info.title) + "}",  # double braces keep the capitals
        "author": _authors(info.authors),
        "year": str(info.year or ""),
        "eprint": number if scheme == "arxiv" else "",
        "archivePrefix": "arXiv" if scheme == "arxiv" else "",
        "doi": number if scheme == "doi" else "",
    }
    if scheme not in ("arxiv", "doi"):
        fields["howpublished"] = _tex(info.paper)
    given = {field: value for field, value in fields.items() if value not in ("", "{}")}
    lines = [f"  {field} = {{{value}}}," for field, value in given.items()]
    return "\n".join([f"@misc{{{name},", *lines, "}"]) + "\n"


def _authors(text: str) -> str:
    """``A, B, et al.`` as BibTeX's ``A and B and others``."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return " and ".join("others" if name.startswith("et al") else _tex(name) for name in names)


def _tex(text: str) -> str:
    return "".join(SPECIAL.get(c, c) for c in text)
