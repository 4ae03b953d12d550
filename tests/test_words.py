"""Private words stay out of library, command line and docs (CONTRIBUTING.md, Words)."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = re.compile(r"\b(rooms?|furniture|verbs? of|anew|oftener|shall|mend(s|ed)?|pictures?|beside)\b", re.I)
CODE = re.compile(
    r"^\s+\w+: |``.*?``|`[^`]*`|\{[^{}]*\}|\S*[/\\=]\S*|\b\w*_\w+\b|\S+\.\w{2,4}\b|--[\w-]+|leave beside out",
    re.S | re.M,
)
PYTHON = [path for folder in ("dit_tools", "cli") for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "man").glob("*.1"))]
TABLE = "| write | not |"


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Comments, docstrings and sentences in strings of a Python file: line and text."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            docstring = token.string.lstrip("rbfuRBFU").startswith(('"""', "'''"))
            sentence = token.type == tokenize.STRING and " " in token.string.strip("\"' ")
            if token.type == tokenize.COMMENT or docstring or sentence:
                yield token.start[0], token.string


def pages(path: Path) -> Iterator[tuple[int, str]]:
    """Paragraphs of a page without its code blocks; the table of words of CONTRIBUTING.md names them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = text.split(TABLE)[0]
    yield from enumerate(text.split("\n\n"), 1)


def found(parts: Iterator[tuple[int, str]]) -> list[str]:
    return [f"{line}: {match[0]}" for line, text in parts if (match := BANNED.search(CODE.sub(" ", text)))]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_speaks_plain_english(path: Path) -> None:
    assert not found(prose(path))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_speak_plain_english(path: Path) -> None:
    assert not found(pages(path))


def test_the_check_finds_words_and_leaves_code(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        '"""A room."""\npicture = "picture"  # ``picture``, picture=1\nraise ValueError("no picture here")\n'
    )
    assert found(prose(file)) == ["1: room", "3: picture"]
    page = io.StringIO("a picture\n\n`picture`").read()
    (tmp_path / "x.md").write_text(page)
    assert found(pages(tmp_path / "x.md")) == ["1: picture"]
