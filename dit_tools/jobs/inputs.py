"""Input files: paths, folders, globs and lists of paths become one list of files."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dit_tools.core.errors import InputError, UsageError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".avif", ".gif", ".bmp", ".ppm", ".pgm", ".jp2")
"""Suffixes that a folder is searched for. A file that is named is taken whatever its suffix."""
MAX_FILES = 100_000
"""Files of one run."""


def expand_inputs(words: Iterable[str], suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files that ``words`` mean, in order, each once; a folder is searched for ``suffixes``.

    A word is a file, a folder (its images and those of the folders below, sorted;
    hidden ones are left out), a pattern with ``*``, ``?`` or ``[...]`` (``**`` for any depth),
    ``@FILE`` (one path a line, ``#`` comments) or ``-`` (the same from stdin).
    Raises InputError for a word that means no file, UsageError for more than MOST files.
    """
    found: dict[Path, None] = {}
    for word in words:
        try:
            for path in _files(word, suffixes):
                found.setdefault(path)
        except OSError as error:  # a name too long for the file system, a closed folder
            raise InputError(f"{word[:200]}: cannot be read: {error.strerror}") from None
    if len(found) > MAX_FILES:
        raise UsageError(f"more than {MAX_FILES} files", "split the run")
    return list(found)


def several(words: Iterable[str], found: Sequence[Path]) -> bool:
    """Whether a run is one over many files: more than one, or whatever a folder holds."""
    return len(found) > 1 or any(Path(word).expanduser().is_dir() for word in words)


def _files(word: str, suffixes: Sequence[str]) -> Iterator[Path]:
    path = Path(word).expanduser()
    if word == "-" or (word.startswith("@") and not path.exists()):
        for line in _lines(word):
            yield from _files(line, suffixes)
    elif path.is_dir():
        yield from _below(path, suffixes)
    elif path.exists():
        yield path
    elif glob.has_magic(word):
        matches = sorted(glob.glob(str(path), recursive=True))
        files = [Path(match) for match in matches if Path(match).is_file()]
        if not files:
            raise InputError(f"{word}: nothing matches", "check the pattern")
        yield from files
    else:
        raise InputError(f"{word}: no such file or folder", "check the path")


def _below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        kind = "pictures" if suffixes is IMAGE_SUFFIXES else f"{' or '.join(suffixes)} files"
        raise InputError(f"{folder}: holds no {kind}", "give a file, or another folder")
    return files


def _lines(word: str) -> list[str]:
    try:
        text = sys.stdin.read() if word == "-" else Path(word[1:]).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{word}: cannot be read: {error}", "give a list of paths") from None
    lines = [line.strip() for line in text.splitlines()]
    made = [line for line in lines if line and not line.startswith("#")]
    if any(line == "-" or line.startswith("@") for line in made):
        raise UsageError(f"{word}: a list of paths names another list", "give the paths themselves")
    return made
