"""Many inputs, one output each: which files are meant, where results go, what the run tells."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools import __version__
from dit_tools.core.errors import DitError, UsageError
from dit_tools.jobs.atomic import atomic_write, write_error
from dit_tools.jobs.events import Listener, Outcome, error_event, event
from dit_tools.jobs.interrupt import Interruptible
from dit_tools.jobs.names import Destination, Names, Value, destination, unique
from dit_tools.jobs.outputs import check_folder, stops_run
from dit_tools.jobs.progress import bar


@dataclass
class Places:
    """Where results go: ``-o`` as in ``dit generate``, ``default`` a template for want of it."""

    output: str | None
    default: str
    overwrite: bool = False
    skip_existing: bool = False
    _names: dict[Destination, Names] = field(default_factory=dict)

    def claim(self, suffix: str, values: dict[str, Value]) -> Path | None:
        """The path of one result; None for stdout. Raises UsageError or InputError."""
        if self.overwrite and self.skip_existing:
            raise UsageError("--overwrite and --skip-existing exclude each other", "give one")
        where = destination(self.output, self.default, suffix)
        if where.kind == "stdout":
            return None
        keep = "keep" if self.overwrite or self.skip_existing else "number"
        path = self._names.setdefault(where, Names(where, keep)).claim(values)
        check_folder(path, make=where.kind == "template")
        return path

    def single(self, count: int) -> None:
        """Raise UsageError when several results would go to one file or to stdout."""
        kind = destination(self.output, self.default).kind
        if count > 1 and kind != "template":
            raise UsageError(f"-o {self.output}: one file for {count} pictures", "end it with /")

    def there(self, path: Path | None) -> bool:
        """Whether the result is left out, as it exists."""
        return path is not None and self.skip_existing and os.path.exists(path)

    def deliver(self, path: Path | None, content: bytes) -> str:
        """Write one result to its path, or to stdout where that is None; where it went."""
        if path is not None:
            return str(self.write(path, content))
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return "-"

    def write(self, path: Path, content: bytes) -> Path:
        """Write one result, whole or not at all; a file that appeared meanwhile is kept."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
        if not self.overwrite:
            path = unique(path)
        atomic_write(path, content)
        return path


@dataclass
class Item:
    """One result to make: what it is made from, where it goes."""

    source: str
    path: Path | None
    data: Any = None

    @property
    def shown(self) -> str:
        """The path as it is printed."""
        return "-" if self.path is None else str(self.path)


@dataclass
class Batch:
    """A run over items. ``make`` makes and writes one; it gives its path and the event's facts."""

    command: str
    items: Sequence[Item]
    places: Places
    make: Callable[[Item], tuple[str, dict[str, Any]]]
    listen: Listener
    quiet: bool = False
    outcome: Outcome = field(default_factory=Outcome)

    def start(self) -> Outcome:
        """Make every result that is not there yet; one that fails does not stop the others."""
        began, count = time.perf_counter(), len(self.items)
        self.listen(event("start", command=self.command, version=__version__, items=count, pending=count))
        with Interruptible() as signals, bar(count, "pictures", self.quiet or count < 2) as shown:
            for index, item in enumerate(self.items):
                if signals.stop_requested or self.outcome.stopped_by is not None:
                    break
                self._one(index + 1, item)
                shown.update(1)
            self.outcome.interrupted = signals.stop_requested
        self.outcome.seconds = time.perf_counter() - began
        self.listen(self.outcome.event())
        return self.outcome

    def _one(self, index: int, item: Item) -> None:
        if self.places.there(item.path):
            self.outcome.skipped += 1
            self.listen(event("skip", index=index, path=item.shown, reason="it exists"))
            return
        try:
            path, facts = self.make(item)
        except DitError as error:
            self.outcome.failed.append((item.source, error))
            self.listen(error_event(error, index=index, path=item.shown, source=item.source))
            if stops_run(error):
                self.outcome.stopped_by = error
            return
        self.outcome.written.append(path)
        self.listen(event("item", index=index, path=path, source=item.source, **facts))
