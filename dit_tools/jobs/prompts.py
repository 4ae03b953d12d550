r"""The value of ``--prompt-file``: many prompts, each with options of its own.

``.txt``: a prompt per line; blank lines and lines that start with ``#`` are skipped (``\#`` starts
a prompt with ``#``); a line of options (``--prompt "a cat" --seed 7``) is read as on the command
line. ``.csv``: a header with a ``prompt`` column, the others named like options; an
empty cell leaves its option alone. ``.jsonl``: an object per line with ``prompt`` and options, or a
bare string; the ``metadata.jsonl`` of an image folder (``file_name`` and ``text``) is read, too.
Files are read as a stream; memory holds the prompts only.
"""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

from dit_tools.core.errors import InputError
from dit_tools.core.reading import parse_json

FILE_LIMIT = 256 << 20  # bytes
PROMPT_LIMIT = 100_000  # bytes of UTF-8
LINE_LIMIT = 1 << 20  # bytes: a prompt escaped in JSON, its negative, and options
FORMATS = ("txt", "csv", "jsonl")

Value = str | int | float | bool | None
Line = tuple[int, str]


@dataclass(frozen=True)
class PromptItem:
    """One prompt of a file.

    Attributes:
        prompt: the text, not empty.
        options: option name with ``_`` (``cfg_scale``) -> value as the file gives it; text in CSV.
        line: line of the file where it starts, from 1.
        source: name of the file; ``-`` for stdin.
    """

    prompt: str
    options: dict[str, Value] = field(default_factory=dict)
    line: int = 0
    source: str = ""


def read_prompts(
    path: str | Path, stdin: IO[bytes] | None = None, *, options: Collection[str] = (), format: str | None = None
) -> list[PromptItem]:
    """Read every prompt of a file.

    Args:
        path: the file; ``-`` is stdin.
        stdin: the bytes of ``-``; None: ``sys.stdin.buffer``.
        options: the long option names that a CSV column or a JSON key may have, ``-`` = ``_``.
        format: ``txt``, ``csv`` or ``jsonl``; None: by suffix, else ``txt``.

    Raises:
        InputError: naming FILE:LINE: unreadable file, over 256 MB, a prompt over 100 kB, bad UTF-8,
            a bad JSON line, no prompt column, an unknown option, no prompt at all.
    """
    name, kind = str(path), format or _kind(str(path))
    readers: dict[str, Callable[[str, Iterator[Line], frozenset[str]], Iterator[PromptItem]]]
    readers = {"txt": _read_text, "csv": _read_csv, "jsonl": _read_jsonl}
    known = frozenset(_plain(option) for option in options)
    try:
        if name == "-":
            stream = stdin if stdin is not None else sys.stdin.buffer
            items = list(readers[kind](name, _lines(name, stream), known))
        else:
            with open(path, "rb") as stream:
                items = list(readers[kind](name, _lines(name, stream), known))
    except OSError as error:
        hint = "give a .txt, .csv or .jsonl file"
        raise InputError(f"{name}: cannot be read: {error.strerror or error}", hint) from None
    if not items:
        raise InputError(f"{name}: holds no prompt", "give at least one line with text")
    return items


def _kind(name: str) -> str:
    suffix = Path(name).suffix.lower().lstrip(".")
    if suffix in ("json", "tsv", "xlsx", "yaml", "yml"):
        raise InputError(f"{name}: not a prompt file", "give .txt, .csv or .jsonl")
    return {"ndjson": "jsonl"}.get(suffix, suffix if suffix in FORMATS else "txt")


def _plain(option: str) -> str:
    return option.strip().lstrip("-").replace("-", "_")


def _lines(name: str, stream: IO[bytes]) -> Iterator[Line]:
    """Numbered lines without their end, as text; bounds are checked before anything is kept."""
    number, size = 0, 0
    while raw := stream.readline(LINE_LIMIT + 1):
        number, size = number + 1, size + len(raw)
        if len(raw) > LINE_LIMIT:
            raise InputError(f"{name}:{number}: a line of over {LINE_LIMIT} bytes", "shorten it")
        if size > FILE_LIMIT:
            raise InputError(f"{name}: over {FILE_LIMIT >> 20} MB", "split the file")
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{name}:{number}: not UTF-8", "save the file as UTF-8") from None
        if "\0" in text:
            raise InputError(f"{name}:{number}: holds a zero byte", "save the file as UTF-8 text")
        yield number, text.rstrip("\r\n")


def _item(name: str, line: int, prompt: Any, options: dict[str, Value]) -> PromptItem:
    where = f"{name}:{line}"
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f"{where}: the prompt is missing or empty", "write one, or drop the line")
    try:
        size = len(prompt.encode("utf-8"))
    except UnicodeEncodeError:  # half a surrogate pair, which only JSON escapes can spell
        raise InputError(f"{where}: the prompt is not Unicode text", "fix its \\u escape") from None
    if size > PROMPT_LIMIT:
        raise InputError(f"{where}: a prompt of {size} bytes", f"at most {PROMPT_LIMIT}")
    return PromptItem(prompt, options, line, name)


def _known(where: str, key: str, known: frozenset[str]) -> str:
    plain = _plain(key)
    if plain not in known:
        close = get_close_matches(plain, [*known, "prompt"], 1)
        hint = f"did you mean '{close[0]}'?" if close else "use the long names of the options"
        raise InputError(f"{where}: no option '{key[:60]}'", hint)
    return plain


def _read_text(name: str, lines: Iterator[Line], known: frozenset[str]) -> Iterator[PromptItem]:
    for number, text in lines:
        text = text.strip()
        if text.startswith("--"):
            yield _item(name, number, *_command_line(f"{name}:{number}", text, known))
        elif text and not text.startswith("#"):
            yield _item(name, number, text.removeprefix("\\") if text[:2] == "\\#" else text, {})


def _command_line(where: str, text: str, known: frozenset[str]) -> tuple[str, dict[str, Value]]:
    """The prompt and the options of a line such as ``--prompt "a cat" --seed 7``."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{where}: a line of options: {error}", "check its quotes") from None
    found: dict[str, Value] = {}
    while words:
        flag, equals, value = words.pop(0).partition("=")
        if not flag.startswith("--"):
            raise InputError(f"{where}: {flag[:40]!r} belongs to no option", "put values with spaces in quotes")
        key = "prompt" if flag == "--prompt" else _known(where, flag, known)
        follows = not equals and bool(words) and not words[0].startswith("--")
        if key in found:
            raise InputError(f"{where}: {flag} is given twice", "keep one of them")
        found[key] = value if equals else words.pop(0) if follows else True
    prompt = found.pop("prompt", "")
    return (prompt if isinstance(prompt, str) else ""), found


def _read_csv(name: str, lines: Iterator[Line], known: frozenset[str]) -> Iterator[PromptItem]:
    reader = csv.reader((text + "\n" for _, text in lines), strict=True)
    header: list[str] = []
    line = 1
    try:
        for row in reader:
            line, start = reader.line_num + 1, line
            if not any(cell.strip() for cell in row):
                continue
            if not header:
                header = _header(f"{name}:{start}", row, known)
                continue
            if len(row) > len(header):
                message = f"{name}:{start}: {len(row)} cells, but {len(header)} columns"
                raise InputError(message, 'put text that holds a comma in "quotes"')
            cells = dict(zip(header, row, strict=False))
            prompt = cells.pop("prompt", "")
            options: dict[str, Value] = {key: cell for key, cell in cells.items() if cell.strip()}
            yield _item(name, start, prompt, options)
    except csv.Error as error:
        raise InputError(f"{name}:{line}: bad CSV: {error}", "check its quotes") from None


def _header(where: str, row: list[str], known: frozenset[str]) -> list[str]:
    columns = [_plain(cell) for cell in row]
    if "prompt" not in columns:
        raise InputError(f"{where}: no column 'prompt'", "the first line names columns, by commas")
    for cell, column in zip(row, columns, strict=True):
        if column != "prompt":
            _known(where, cell, known)
    if len(set(columns)) < len(columns):
        raise InputError(f"{where}: a column is named twice", "keep one of them")
    return columns


def _read_jsonl(name: str, lines: Iterator[Line], known: frozenset[str]) -> Iterator[PromptItem]:
    for number, text in lines:
        if not text.strip():
            continue
        where = f"{name}:{number}"
        entry = _entry(where, text)
        options: dict[str, Value] = {}
        for key, value in entry.items():
            if key == "prompt":
                continue
            plain = _known(where, key, known)
            if plain in options:
                raise InputError(f"{where}: option '{plain}' is given twice", "keep one of them")
            if isinstance(value, (dict, list)):
                raise InputError(f"{where}: option '{key}' needs one value", "write text or a number")
            options[plain] = value
        yield _item(name, number, entry.get("prompt"), options)


def _entry(where: str, text: str) -> dict[str, Any]:
    """The object of a line; a bare string is its prompt."""
    try:
        entry = parse_json(text, where)
    except InputError as error:
        raise InputError(error.message, "one object per line") from None
    if isinstance(entry, str):
        entry = {"prompt": entry}
    if not isinstance(entry, dict):
        raise InputError(f"{where}: neither an object nor a string", 'write {"prompt": ...}')
    if "file_name" in entry and "text" in entry:  # of an image folder
        entry = {"prompt": entry["text"]}
    return entry
