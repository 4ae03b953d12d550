"""Reading files that somebody else wrote: bounded bytes, JSON and TOML checked against a schema.

Every JSON and TOML file that the suite reads goes through here, so that a damaged or hostile one is
refused in one line: size before allocation, nesting before recursion, digits before arithmetic,
types and ranges before use.

    from dit_tools.core.reading import Field, Table, parse_json

    SCHEMA = Table({"steps": Field(int, least=1, most=1000), "name": Field(str, required=True)})
    facts = parse_json(content, "dit.json", SCHEMA, ModelError)
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from dit_tools.core.errors import DitError, InputError

DEPTH = 60  # brackets within brackets; the deepest file that the suite writes has 8
DIGITS = 400  # of an integer: more than any float has, less than Python takes long for
PIECE = 1 << 20
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_BRACKET = re.compile(r"[\[\]{}]")


def read_at_most(stream: BinaryIO, limit: int, what: str, error: type[DitError] = InputError) -> bytes:
    """The rest of a stream in pieces, so that a small file costs little memory.

    Raises ``error`` when there are more than ``limit`` bytes.
    """
    parts: list[bytes] = []
    size = 0
    while part := stream.read(min(PIECE, limit + 1 - size)):
        parts.append(part)
        size += len(part)
        if size > limit:
            raise error(f"{what} of over {_size(limit)} is refused")
    return b"".join(parts)


def _size(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count // unit} {name}"
    return f"{count} bytes"


def parse_json(
    content: bytes | str,
    where: str,
    schema: Field | Table | None = None,
    error: type[DitError] = InputError,
    constants: bool = False,
) -> Any:
    """A JSON document, checked.

    Args:
        content: UTF-8, with a byte order mark or without.
        where: the file, for the message.
        schema: what it must be; None: any JSON.
        error: what is raised: ModelError for files of a model.
        constants: whether NaN and Infinity are let through, which schedulers' configs hold.

    Raises:
        DitError: of kind ``error``: no UTF-8, no JSON (NaN and Infinity are none), nested deeper
            than DEPTH, an integer of over DIGITS digits, or not what the schema says.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        _shallow(text)
        made = json.loads(text, parse_constant=float if constants else _no_constant, parse_int=_integer)
        if schema is not None:
            schema.check(made, "")
    except (ValueError, RecursionError) as problem:
        raise error(f"{where}: {_reason(problem, 'JSON')}", "replace it with an undamaged file") from None
    return made


def read_json(
    path: Path, limit: int = 64 << 20, schema: Field | Table | None = None, error: type[DitError] = InputError
) -> Any:
    """A JSON file of a model, of at most ``limit`` bytes, checked as by ``parse_json`` with constants.

    Raises ``error`` naming the file, also where it cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            content = read_at_most(stream, limit, f"{path}: a file", error)
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror or problem}", "check path and rights") from None
    return parse_json(content, str(path), schema, error, constants=True)


def parse_toml(
    content: bytes | str, where: str, schema: Field | Table | None = None, error: type[DitError] = InputError
) -> dict[str, Any]:
    """A TOML document, checked; arguments and errors as ``parse_json``."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        _shallow(text)
        _few_digits(text)
        made = tomllib.loads(text)
        if schema is not None:
            schema.check(made, "")
    except (ValueError, RecursionError) as problem:
        raise error(f"{where}: {_reason(problem, 'TOML')}", "correct the file") from None
    return made


class SchemaError(ValueError):
    """A value that is not what the schema says; the message names the key."""


def _reason(problem: Exception, kind: str) -> str:
    if isinstance(problem, UnicodeDecodeError):
        return "is not UTF-8"
    if isinstance(problem, SchemaError):
        return str(problem)
    message = str(problem)[:120].splitlines() or [""]
    return f"bad {kind}: {message[0]}"


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _shallow(text: str) -> None:
    """Raise ValueError for brackets nested deeper than DEPTH, before a parser recurses into them.

    Brackets within quoted text do not count, as long as the text ends on its line.
    """
    depth = 0
    for bracket in _BRACKET.findall(_QUOTED.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH:
            raise ValueError(f"nested deeper than {DEPTH}")


def _few_digits(text: str) -> None:
    """Raise ValueError for a number that Python would take long to read: tomllib has no hook for it."""
    run = 0
    for letter in text:
        run = run + 1 if letter.isalnum() or letter == "_" else 0
        if run > DIGITS and letter.isdigit():
            start = text[: text.index(letter)].count("\n")
            raise ValueError(f"a number or word of over {DIGITS} letters after line {start}")


@dataclass(frozen=True)
class Field:
    """One value: its type, its bounds, and whether it must be there.

    Attributes:
        kind: int, float (takes integers), str, bool, list or dict, or several of them.
        least: smallest number, or fewest letters or entries.
        most: largest number, or most letters or entries; None: 1e18 for an int, 1 MiB of text.
        choices: the values that are allowed; empty: any.
        item: what every entry of a list or value of a dict must be.
        required: whether a table without it is refused.
        nullable: whether null stands for "not given".
    """

    kind: type | tuple[type, ...] = str
    least: float | None = None
    most: float | None = None
    choices: tuple[Any, ...] = ()
    item: Field | Table | None = None
    required: bool = False
    nullable: bool = True

    def check(self, value: Any, name: str) -> None:
        """Raise SchemaError naming ``name`` when a value is not so."""
        if value is None and self.nullable:
            return
        label = f"'{name}'" if name else "the document"
        kinds = self.kind if isinstance(self.kind, tuple) else (self.kind,)
        if not any(_is(value, kind) for kind in kinds):
            raise SchemaError(f"{label} must be {' or '.join(_WORDS[kind] for kind in kinds)}, not {_shown(value)}")
        if self.choices and value not in self.choices:
            raise SchemaError(f"{label} must be one of {', '.join(map(str, self.choices))}, not {_shown(value)}")
        size: float = value if isinstance(value, (int, float)) else len(cast("list[Any]", value))
        most = self.most if self.most is not None else (1 << 20 if isinstance(value, str) else 1e18)
        if not (-1e18 if self.least is None else self.least) <= size <= most:  # NaN, too
            raise SchemaError(f"{label} is out of range: {_shown(cast('object', value))}")
        if self.item is not None and isinstance(value, (list, dict)):
            table = cast("dict[str, Any]", value)
            entries = table.items() if isinstance(value, dict) else enumerate(cast("list[Any]", value))
            for key, entry in entries:
                self.item.check(entry, f"{name}.{str(key)[:40]}" if name else str(key)[:40])


@dataclass(frozen=True)
class Table:
    """An object with named fields; others are let through unless ``closed``."""

    fields: Mapping[str, Field | Table] = field(default_factory=dict[str, Any])
    closed: bool = False
    required: bool = False

    def check(self, value: Any, name: str) -> None:
        """Raise SchemaError naming the key when a value is not so."""
        label = f"'{name}'" if name else "the document"
        if not isinstance(value, dict):
            raise SchemaError(f"{label} must be {_WORDS[dict]}, not {_shown(value)}")
        value = cast("dict[str, Any]", value)
        for key, wanted in self.fields.items():
            inner = f"{name}.{key}" if name else key
            if key in value:
                wanted.check(value[key], inner)
            elif wanted.required:
                raise SchemaError(f"'{inner}' is missing")
        if self.closed and (unknown := sorted(set(value) - set(self.fields))):
            raise SchemaError(f"{label} has an unknown key {unknown[0][:60]!r}")


_WORDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return "an integer of many digits"
    return repr(value)[:60]
