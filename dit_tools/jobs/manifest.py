"""What a run has finished, so that the next one goes on where it stopped.

A JSON Lines file in the output folder, only ever appended to. Before an output gets its name, a line
says which item it is, its name, size and hash; so a kill at any moment leaves either no output, or
one that the next run knows. An item counts as done when the file has the size and hash of its line.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.core.errors import InputError, UsageError
from dit_tools.jobs.atomic import write_error

MANIFEST_NAME = ".dit-manifest.jsonl"
VERSION = 1
LINE_LIMIT = 1 << 20  # bytes
MADE = ("intended", "done")
"""Statuses of a line that names an output."""
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """What the manifest says about one item; ``output`` is relative to the manifest's folder."""

    key: str
    status: str  # intended, done, failed
    output: str = ""
    size: int = 0  # bytes
    sha256: str = ""
    reason: str = ""


def key_of(record: dict[str, Any]) -> str:
    """The name of a request: the SHA-256 of its record, whatever the order of its keys.

    The record must hold all that changes the output (options, model hash, hashes of inputs) and
    nothing that does not (times, the output's name).

    Raises:
        UsageError: a value that JSON cannot hold.
    """
    try:
        text = json.dumps(record, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the request cannot be written as JSON: {error}") from None
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal; OSError as it comes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Manifest:
    """The manifest of one output folder.

    Several processes may append at once: each line goes out in one O_APPEND write. A torn last line
    (a killed process, a full disk) is passed over and counted in ``damaged``.

    Args:
        folder: the output folder; made with the first ``add`` where it is missing.

    Raises:
        InputError: the manifest is there but cannot be read.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.damaged = Path(folder), 0
        self.path = self.folder / MANIFEST_NAME
        self._entries: dict[str, Entry] = {}
        try:
            with open(self.path, "rb") as stream:
                while line := stream.readline(LINE_LIMIT):
                    self._take(line)
        except FileNotFoundError:
            pass
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{self.path}: cannot be read: {reason}", "fix or remove it") from None

    def __len__(self) -> int:
        """Number of items known, failed ones included."""
        return len(self._entries)

    def done(self, key: str) -> Path | None:
        """The output of a finished item if it is still there, whole and unchanged; else None."""
        entry = self._entries.get(key)
        if entry is None or entry.status not in MADE:
            return None
        path = self.folder / entry.output
        try:
            if path.stat().st_size == entry.size and file_hash(path) == entry.sha256:
                return path
        except (OSError, ValueError):  # ValueError: a NUL in a name that someone edited
            pass
        return None

    def failed(self) -> dict[str, str]:
        """Key -> reason of the items whose last try failed."""
        found = self._entries.values()
        return {entry.key: entry.reason for entry in found if entry.status == "failed"}

    def add(self, key: str, output: str | Path) -> Entry:
        """Write down that ``output`` is finished; call it after the file has its final name.

        Raises:
            InputError: the output cannot be read, or the manifest not written.
        """
        path = Path(output)
        try:
            size, digest = path.stat().st_size, file_hash(path)
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{path}: cannot be read back: {reason}", "run again") from None
        return self._append(Entry(key, "done", self._relative(path), size, digest))

    def intend(self, key: str, output: str | Path, size: int, sha256: str) -> Entry:
        """Write down that ``output`` is about to get its name, with ``size`` bytes of this hash.

        Raises:
            InputError: the manifest cannot be written.
        """
        return self._append(Entry(key, "intended", self._relative(Path(output)), size, sha256))

    def add_failure(self, key: str, reason: str) -> Entry:
        """Write down that an item failed; ``reason`` is one line, cut at 500 characters."""
        return self._append(Entry(key, "failed", reason=" ".join(reason.split())[:500]))

    def _relative(self, path: Path) -> str:
        try:
            return Path(os.path.relpath(path, self.folder)).as_posix()
        except ValueError:  # another drive on Windows
            return str(path.absolute())

    def _append(self, entry: Entry) -> Entry:
        fields = {name: value for name, value in vars(entry).items() if value not in ("", 0)}
        line = json.dumps({"version": VERSION, **fields}).encode("ascii") + b"\n"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            descriptor = os.open(self.path, flags, 0o666)
            try:
                if self._torn(descriptor):
                    line = b"\n" + line
                written = os.write(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise write_error(self.path, error) from error
        if written < len(line):
            raise InputError(f"{self.path}: cannot be written: the disk is full", "free some space")
        self._entries[entry.key] = entry
        return entry

    @staticmethod
    def _torn(descriptor: int) -> bool:
        if not os.lseek(descriptor, 0, os.SEEK_END):
            return False
        os.lseek(descriptor, -1, os.SEEK_END)
        return os.read(descriptor, 1) != b"\n"

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        entry = _parse(line)
        if entry is None:
            self.damaged += 1
        else:
            self._entries[entry.key] = entry


def _parse(line: bytes) -> Entry | None:
    try:
        fields = json.loads(line)
        if fields.pop("version") != VERSION:
            return None
        entry = Entry(**fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    texts = (entry.key, entry.status, entry.output, entry.sha256, entry.reason)
    if not all(isinstance(text, str) for text in texts) or not isinstance(entry.size, int):
        return None
    if entry.status in MADE and not (entry.output and _HASH.fullmatch(entry.sha256)):
        return None
    return entry
