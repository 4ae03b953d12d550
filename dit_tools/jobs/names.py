"""Names of outputs: what ``-o`` means, templates, and numbers where a name is taken.

A template is a path with fields: ``out/{stem}-{seed}-{index:04d}.png``. The text around the fields
is the user's own and may name any folder; the *values* come from prompts and files of others, so
each becomes part of one path component and can neither leave the folder nor make a new one.
"""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from dit_tools.core.errors import InputError, UsageError

PROMPT_LENGTH = 60  # characters of a prompt in a name
_PROMPT_BYTES = 180  # leaves space for seed, index and suffix in the 255 bytes of a component
_COMPONENT_BYTES = 255
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.I)
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_SPEC = re.compile(r"(0?[0-9]{1,2})?(\.[0-9])?[dfx]?")
# Separators, what Windows forbids, control characters, and marks that turn the reading direction.
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]')
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}$")

Value = str | int | float


class NameTooLongError(InputError):
    """The values of one item make a file name that no file system takes."""


def slug(text: str) -> str:
    """A prompt as part of a file name: letters and digits of any script, hyphens between.

    At most 60 characters, lower case; ``untitled`` where nothing is left.
    """
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text[:2000]).lower())
    kept = "".join(c if unicodedata.category(c)[0] in "LNM" else "-" for c in plain)
    short = re.sub("-+", "-", kept).strip("-")[:PROMPT_LENGTH]
    cut = short.encode("utf-8")[:_PROMPT_BYTES].decode("utf-8", "ignore")
    return cut.strip("-") or "untitled"


def clean(text: str) -> str:
    """A value as part of a file name, changed as little as safety on every system allows."""
    text = _UNSAFE.sub("_", text)
    try:
        os.fsencode(text)  # bytes that are not UTF-8 stay as the file system gave them
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "_", text)
    return text


def fill_template(template: str, fields: Mapping[str, Value]) -> Path:
    """Fill a template.

    Args:
        template: a path with ``{name}`` or ``{name:04d}``; ``{{`` and ``}}`` are plain braces.
        fields: the values; ``prompt`` becomes a slug, other text is cleaned.

    Raises:
        UsageError: unknown field, a format that does not fit its value, a lone brace.
        NameTooLongError: a component of over 255 bytes.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            if match[0] in "{}":
                raise UsageError(f"-o {template}: a lone '{match[0]}'", "double it for a plain one")
            return match[0][0]
        return _value(template, match[1], fields)

    folder, name = os.path.split(template)
    path = Path(*(_component(part, value) for part in (*Path(folder).parts, name)))
    for part in path.parts:
        if len(os.fsencode(part)) > _COMPONENT_BYTES:
            message = f"{part[:40]}...: the output's name has over {_COMPONENT_BYTES} bytes"
            raise NameTooLongError(message, "name outputs by fewer fields, for example -o 'out/{index}'")
    return path


def _value(template: str, inside: str, fields: Mapping[str, Value]) -> str:
    name, _, spec = inside.partition(":")
    if name not in fields:
        close = get_close_matches(name, fields, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(sorted(fields))}"
        raise UsageError(f"-o {template}: no field '{name}'", hint)
    given = fields[name]
    if not _SPEC.fullmatch(spec):
        hint = f"for example {{{name}:04d}}"
        raise UsageError(f"-o {template}: '{spec}' is no format for '{name}'", hint)
    try:
        text = format(given, spec)
    except ValueError:
        raise UsageError(f"-o {template}: '{name}' is not a number", f"write {{{name}}}") from None
    return slug(str(given)) if name == "prompt" else clean(text)


def _component(pattern: str, value: Callable[[re.Match[str]], str]) -> str:
    """One filled path component; only what the user typed may be ``..`` or empty."""
    if not _FIELD.search(pattern):
        return pattern
    filled = _FIELD.sub(value, pattern)
    filled = filled.rstrip(". ") or "_"  # Windows drops them, and ".." would climb
    return f"_{filled}" if _RESERVED.match(filled) else filled


@dataclass(frozen=True)
class Destination:
    """Where ``-o`` sends the outputs: ``stdout``, one ``file``, or a ``template`` of many."""

    kind: Literal["stdout", "file", "template"]
    template: str = ""


def destination(output: str | None, default: str, suffix: str = ".png") -> Destination:
    """Read the value of ``-o``.

    Args:
        output: None: the default template here; ``-``: stdout; a folder (it exists, or ends with
            ``/``): the default template in it; with ``{``: a template; else one file.
        default: the template of the command, such as ``{stem}-{seed}``.
        suffix: put where the name has none.

    Raises:
        UsageError: an empty ``-o``.
    """
    if output == "":
        raise UsageError("-o: empty", "give a file, a folder/, a template or -")
    if output == "-":
        return Destination("stdout")
    separators = tuple(filter(None, (os.sep, os.altsep, "/")))
    if output is None:
        return Destination("template", _suffixed(default, suffix))
    if output.endswith(separators) or os.path.isdir(output):
        # A brace in a folder that exists is a plain brace.
        folder = output.replace("{", "{{").replace("}", "}}") if os.path.isdir(output) else output
        return Destination("template", _suffixed(os.path.join(folder, default), suffix))
    kind: Literal["template", "file"] = "template" if "{" in output else "file"
    return Destination(kind, _suffixed(output, suffix))


def _suffixed(name: str, suffix: str) -> str:
    return name if _SUFFIX.search(name) or name.endswith(suffix) else name + suffix


def unique(path: Path, taken: Callable[[Path], bool] = os.path.lexists) -> Path:
    """``path``, or the first of ``name-2.png``, ``name-3.png``, ... that is not taken."""
    return next(name for name in numbered(path) if not taken(name))


def numbered(path: Path, start: int = 1) -> Iterator[Path]:
    """``path``, ``name-2.png``, ``name-3.png``, ... without end; ``start`` 2 leaves out ``path`` itself.

    A long name gives way to the number; the name stays within 255 bytes.
    """
    stem, suffix = os.fsencode(path.stem), path.suffix
    most = _COMPONENT_BYTES - len(os.fsencode(suffix))
    for number in itertools.count(start):
        tail = f"-{number}"
        if number == 1:
            yield path
        elif len(stem) + len(tail) <= most:
            yield path.with_name(f"{path.stem}{tail}{suffix}")
        else:
            yield path.with_name(f"{stem[: most - len(tail)].decode('utf-8', 'ignore')}{tail}{suffix}")


class Names:
    """The names of one run: no two outputs share one, and existing files are kept.

    Args:
        where: what ``destination`` gave, not stdout.
        existing: ``number`` gives a new name where a file exists; ``keep`` gives the name of
            the existing file, for --overwrite and --skip-existing, which the caller carries out.
    """

    def __init__(self, where: Destination, existing: Literal["number", "keep"] = "number"):
        self.where, self.existing = where, existing
        self._given: set[str] = set()
        self._next: dict[Path, int] = {}  # so that many outputs of one name are not searched from 1 each time

    def claim(self, fields: Mapping[str, Value]) -> Path:
        """The path of the next output; raises what ``fill_template`` raises."""
        return self.another(self.base(fields))

    def base(self, fields: Mapping[str, Value]) -> Path:
        """The path that an output would have if it were free; raises what ``fill_template`` raises."""
        template = self.where.template
        return Path(template) if self.where.kind == "file" else fill_template(template, fields)

    def another(self, base: Path) -> Path:
        """The first name of ``base``, ``base-2``, ... that was not given yet and is free."""
        number = self._next.get(base, 1)
        for path in numbered(base, number):
            number += 1
            if not self._taken(path):
                self._next[base] = number
                self.reserve(path)
                return path
        raise AssertionError("numbers do not end")

    def reserve(self, path: Path) -> None:
        """Give ``path`` to nobody else."""
        self._given.add(_folded(path))

    def _taken(self, path: Path) -> bool:
        if _folded(path) in self._given:
            return True
        return self.existing == "number" and os.path.lexists(path)


def _folded(path: Path) -> str:
    # Two names that differ in case or in composition are one file on macOS and Windows.
    return unicodedata.normalize("NFC", os.path.abspath(path)).casefold()
