"""Where the results of a run go: decided for all of them before a model is loaded, written one by one."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dit_tools.core.errors import DitError, UsageError
from dit_tools.jobs.atomic import PartFile, atomic_path, write_error
from dit_tools.jobs.items import Content, Item
from dit_tools.jobs.manifest import Manifest, file_hash, key_of
from dit_tools.jobs.names import Destination, Names, NameTooLongError, destination

STOPS_A_RUN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What keeps every further result from being written too."""


@dataclass
class OutputFile:
    """Where the result of an item goes: ``path``, or None for stdout.

    ``state``: ``make``; ``done`` when the manifest has it, whole; ``exists`` with --skip-existing;
    ``failed`` with the ``error`` of a name that cannot be.
    """

    item: Item
    path: Path | None
    base: Path | None = None  # its name before it was numbered
    key: str = ""  # in the manifest; empty: not computed yet, or not kept
    state: str = "make"
    error: DitError | None = None
    shown_progress: int = 0  # of the item's weight, on the bar

    @property
    def shown(self) -> str:
        """The path as it is printed."""
        return "-" if self.path is None else str(self.path)


@dataclass
class Outputs:
    """The value of ``-o``, the name template in its absence, and what to do about files that are there.

    A run whose ``-o`` is a folder or a template below one keeps a manifest there and goes on where
    it was stopped; with ``resume`` so does a run without ``-o``, in the current folder.
    Raises UsageError and InputError from ``targets``, before anything is written.
    """

    output: str | None = None
    default: str = "{stem}"
    overwrite: bool = False
    skip_existing: bool = False
    resume: bool = False
    always: bool = False  # make every item, whatever an earlier run made: no manifest
    stdout: BinaryIO | None = None  # where ``-o -`` writes; None: the process's own
    manifest: Manifest | None = None
    _places: dict[str, Destination] = field(default_factory=dict)
    _names: dict[Destination, Names] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _checked: set[Path] = field(default_factory=set)

    def single(self, count: int) -> None:
        """Raise UsageError when several results would go to one file or to stdout."""
        if count > 1 and self.kind != "template":
            raise UsageError(f"-o {self.output}: one file for {count} images", "end it with /")

    @property
    def kind(self) -> str:
        """``stdout``, ``file`` or ``template``."""
        return destination(self.output, self.default).kind

    def template(self, suffix: str) -> str:
        """The template of the names of outputs, whose suffix is ``suffix`` where ``-o`` has none; ``-`` for stdout."""
        return self._where(suffix).template or "-"

    def targets(self, items: Sequence[Item]) -> list[OutputFile]:
        """A target for every item, in order."""
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite and --skip-existing exclude each other", "give one of them")
        folder = None if self.always else manifest_folder(self.output, self.resume)
        self.manifest = Manifest(folder) if folder is not None else None
        return [self.target(item, alone=len(items) == 1) for item in items]

    def target(self, item: Item, alone: bool = False) -> OutputFile:
        """Where one more result goes. Raises InputError for a place that cannot be written to.

        ``alone``: so does a name that is too long; otherwise it fails this item only.
        """
        where = self._where(item.suffix)
        if where.kind == "stdout":
            return OutputFile(item, None)
        names = self._names_of(where)
        target = OutputFile(item, None)
        if self.manifest is not None and len(self.manifest) and not self.overwrite:
            self.identify(target)
            done = self.manifest.done(target.key)
            if done is not None:
                names.reserve(done)
                return OutputFile(item, done, done, target.key, "done")
        try:
            target.base = names.base(item.fields)
        except NameTooLongError as error:
            if alone:
                raise
            target.state, target.error = "failed", error
            return target
        target.path = names.another(target.base)
        self._refuse_inputs(target)
        if self.skip_existing and os.path.exists(target.path):
            target.state = "exists"
        elif target.path.parent not in self._checked or target.path.is_dir():
            check_folder(target.path, make=where.kind == "template")
            self._checked.add(target.path.parent)
        return target

    def _where(self, suffix: str) -> Destination:
        if suffix not in self._places:
            self._places[suffix] = destination(self.output, self.default, suffix)
        return self._places[suffix]

    def _names_of(self, where: Destination) -> Names:
        if where not in self._names:
            self._names[where] = Names(where, "keep" if self.overwrite or self.skip_existing else "number")
        return self._names[where]

    def _refuse_inputs(self, target: OutputFile) -> None:
        """Raise UsageError when the output would be one of the files that it is made from."""
        path = target.path
        if path is not None and os.path.exists(path):  # it says no to a name that is too long
            real = path.resolve()
            if any(Path(name).resolve() == real for name in target.item.inputs):
                raise UsageError(f"-o {path}: is the image itself", "write the edit elsewhere")

    def identify(self, target: OutputFile) -> None:
        """Find the item's key in the manifest; it reads the inputs, so that changed ones are made again.

        Items that agree in everything are counted, for each is to be made. An input that cannot be
        read leaves the key empty: making the item will say what is wrong.
        """
        item = target.item
        if self.manifest is None or target.key or not item.identity:
            return
        try:
            hashes = [file_hash(path) for path in item.inputs]
        except OSError:
            return
        key = key_of({**item.identity, **({"inputs": hashes} if hashes else {})})
        count = self._counts[key] = self._counts.get(key, 0) + 1
        target.key = key if count == 1 else key_of({"key": key, "copy": count})

    def folders(self, targets: Sequence[OutputFile]) -> set[Path]:
        """The folders that results are written to, and that of the manifest."""
        found = {target.path.parent for target in targets if target.path is not None}
        return found | ({self.manifest.folder} if self.manifest is not None else set())

    def write(self, target: OutputFile, content: Content) -> str | None:
        """Write a result, whole or not at all, and say where it went; None when it was left out.

        A file that appeared since the run began is never replaced without --overwrite: the result
        gets another name, or is left out with --skip-existing. Raises InputError.
        """
        if target.path is None:
            self._to_stdout(content)
            return "-"
        try:
            target.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(target.path, error) from error
        if self.overwrite:
            with atomic_path(target.path) as part:
                self._intend(target, target.path, fill(part, content))
            return target.shown
        return self._put(target, content)

    def _put(self, target: OutputFile, content: Content) -> str | None:
        """Give the result the first name that is free at this moment, and the target that path."""
        path = target.path
        assert path is not None and target.base is not None
        names = self._names_of(self._where(target.item.suffix))
        try:
            with PartFile(path.parent, path.suffix) as part:
                facts = fill(part.path, content)
                part.flush()
                while True:
                    self._intend(target, path, facts)
                    try:
                        part.put(path)
                    except FileExistsError:
                        if self.skip_existing:
                            return None
                        path = target.path = names.another(target.base)
                    else:
                        return str(path)
        except OSError as error:
            raise write_error(path, error) from error

    def _intend(self, target: OutputFile, path: Path, facts: tuple[int, str]) -> None:
        if self.manifest is not None and target.key:
            self.manifest.intend(target.key, path, *facts)

    def _to_stdout(self, content: Content) -> None:
        assert isinstance(content, bytes), "a stream takes bytes"
        stream = self.stdout or sys.stdout.buffer
        stream.write(content)
        stream.flush()

    def failed(self, target: OutputFile, error: DitError) -> None:
        """Note a failure in the manifest, where there is one."""
        if self.manifest is not None and target.key and not stops_run(error):
            self.manifest.add_failure(target.key, str(error))


def fill(path: Path, content: Content) -> tuple[int, str]:
    """Write a file's content to ``path``; gives its size in bytes and its SHA-256."""
    if isinstance(content, bytes):
        path.write_bytes(content)
        return len(content), hashlib.sha256(content).hexdigest()
    content(path)
    return path.stat().st_size, file_hash(path)


def manifest_folder(output: str | None, resume: bool = False) -> Path | None:
    """The folder that keeps the manifest; None without a folder of the user's own.

    ``resume``: without ``-o``, or with a template of the current folder, it is the current one.
    """
    here = Path(".") if resume else None
    if output is None:
        return here
    if output in ("", "-"):
        return None
    if output.endswith(("/", os.sep)) or os.path.isdir(output):
        return Path(output)
    parts = Path(output).parts
    fixed = [i for i, part in enumerate(parts) if "{" in part]
    if not fixed:
        return None
    return Path(*parts[: fixed[0]]) if fixed[0] > 0 else here


def check_folder(path: Path, make: bool) -> None:
    """Raise InputError when ``path`` cannot be written; with ``make``, missing folders are fine."""
    try:
        number = _obstacle(path, make)
    except OSError as error:  # such as a name that is too long
        raise write_error(path, error) from error
    if number:
        raise write_error(path, OSError(number, os.strerror(number)))


def _obstacle(path: Path, make: bool) -> int:
    """The errno that writing would meet, as far as looking shows; 0 for none."""
    if path.is_dir():
        return errno.EISDIR
    folder = path.parent
    while make and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.exists():
        return errno.ENOENT
    if not folder.is_dir():
        return errno.ENOTDIR
    return 0 if os.access(folder, os.W_OK | os.X_OK) else errno.EACCES


def stops_run(error: BaseException) -> bool:
    """Whether an error of writing would come back for every further image."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in STOPS_A_RUN
