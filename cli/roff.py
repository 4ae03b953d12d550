"""The little of roff, the language of man pages, that ``manpages`` needs."""

from __future__ import annotations

import inspect

# Typewriter signs that roff would otherwise turn into typographic ones.
SIGNS = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq", "ô": "\\(^o"}


def escape(text: str) -> str:
    """Text that roff prints as it is."""
    return "".join(SIGNS.get(c, c) for c in text)


def bold(text: str) -> str:
    """The text in bold."""
    return f"\\fB{escape(text)}\\fR"


def prose(text: str) -> str:
    """A paragraph in one line; what stands between double backticks is set in italics."""
    parts = " ".join(text.split()).split("``")
    line = "".join(f"\\fI{escape(p)}\\fR" if i % 2 else escape(p) for i, p in enumerate(parts))
    return f"\\&{line}" if line.startswith((".", "\\(aq")) else line


def paragraphs(text: str) -> list[str]:
    """Lines of roff for a text whose paragraphs are parted by empty lines."""
    parts = inspect.cleandoc(text).split("\n\n")
    return [line for part in parts if part.strip() for line in (".PP", prose(part))]
