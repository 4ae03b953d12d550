"""The run of every subcommand that turns inputs into outputs.

A task plans items and makes them; the runner does the rest: it leaves out what is there, makes
batches through an executor, writes each result whole, notes it for the next run, tells events,
shows progress, goes on past a failure, and stops at Ctrl-C. A new subcommand is one file in
``tasks/`` (and one in ``cli/`` that ends with ``_output.finish(assemble(...).start(), quiet)``)::

    class Negative(Task):
        command = "negative"

        def make(self, items, report):  # here alone models are loaded and arithmetic is done
            pixels = [image.read(item.source).pixels for item in items]
            return [Result(image.encode(1 - p, item.data), {"width": p.shape[1]}) for item, p in zip(items, pixels)]

    def assemble(request, listen):  # everything is checked, nothing heavy is imported
        outputs = Outputs(request.output, "{stem}-negative", request.overwrite, request.skip_existing, resume=True)
        kind = output_format(request.output, request.format)
        items = []
        for index, path in enumerate(expand(request.images)):
            fields = {"stem": path.stem, "index": index + 1}
            identity = {"command": "negative", "source": path.name, "format": kind}
            told, inputs = {"source": str(path)}, (str(path),)
            items.append(Item(index, str(path), kind, suffix(kind), fields, identity, inputs, told))
        return Runner(items, Negative(), outputs, listen, quiet=request.quiet)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dit_tools import __version__
from dit_tools.core.errors import DitError
from dit_tools.jobs import interrupt
from dit_tools.jobs.atomic import remove_leftovers
from dit_tools.jobs.events import Listener, Outcome, error_event, event
from dit_tools.jobs.executors import Batch, Executor
from dit_tools.jobs.executors.local import Local
from dit_tools.jobs.interrupt import Interruptible
from dit_tools.jobs.items import Item, Made, Report, Result, Task
from dit_tools.jobs.outputs import OutputFile, Outputs, stops_run
from dit_tools.jobs.progress import bar

REASONS = {"done": "done before", "exists": "it exists"}
"""Target state -> why an item is left out."""


@dataclass
class Runner:
    """A run over items; ``start`` does it and gives the outcome.

    Where the outputs go is decided at once: ``targets`` says so for ``--dry-run``, and a place that
    cannot be written to raises UsageError or InputError here.
    """

    items: Sequence[Item]
    task: Task
    outputs: Outputs
    listen: Listener
    executor: Executor = field(default_factory=Local)
    quiet: bool = False
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self.targets = self.outputs.targets(self.items)
        self._by_index = {target.item.index: target for target in self.targets}

    def start(self) -> Outcome:
        """Make every output that is not there yet.

        An item that fails is told to the listener, and the run goes on; a full disk or a read-only
        folder ends it. Raises KeyboardInterrupt on the second Ctrl-C.
        """
        began = time.perf_counter()
        todo = [target for target in self.targets if target.state == "make"]
        for folder in self.outputs.folders(self.targets):
            remove_leftovers(folder)
        self._tell("start", command=self.task.command, version=__version__, items=len(self.targets), pending=len(todo))
        for target in self.targets:
            if target.state in REASONS:
                self._skip(target)
            elif target.error is not None:
                self._fail(target, target.error)
        weight = sum(target.item.weight for target in todo)
        with Interruptible() as self._signals, bar(weight, self.task.counted, self._quiet_bar(todo)) as self._bar:
            self._make(todo)
            self.outcome.interrupted = self._signals.stop_requested
        if not self.outcome.interrupted:
            self._close()
        self.outcome.verdict, self.outcome.summary = self.task.verdict(), self.task.summary()
        self.outcome.seconds = time.perf_counter() - began
        self.listen(self.outcome.event())
        return self.outcome

    # making ---------------------------------------------------------------------------------------

    def _make(self, todo: Sequence[OutputFile]) -> None:
        self.task.stopping = self._stopping
        if (results := self.task.flow()) is not None:
            self._flow(results)
            return
        batches = self.task.batches([target.item for target in todo])
        for batch, made in self.executor.map(self.task, self._asked(batches), self._watch):
            self._take(batch, made)

    def _stopping(self) -> bool:
        interrupt.check()
        return self._signals.stop_requested or self.outcome.stopped_by is not None

    def _flow(self, results: Iterator[tuple[Item, Result]]) -> None:
        try:
            for item, result in results:
                target = self.outputs.target(item)
                self._by_index[item.index] = target
                self.outputs.identify(target)
                if target.state == "make":
                    self._one(target, result)
                else:
                    self._skip(target)
        except DitError as error:
            self.outcome.failed.append((self.task.input_name, error))
            self.listen(error_event(error, source=self.task.input_name))

    def _asked(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Batches as long as they are wanted; their inputs are hashed before they are read."""
        for batch in batches:
            if self._stopping():
                return
            for item in batch:
                self.outputs.identify(self._by_index[item.index])
            yield batch

    def _take(self, batch: Batch, made: Made | DitError) -> None:
        if not isinstance(made, DitError):
            for item, one in zip(batch, made, strict=True):
                self._one(self._by_index[item.index], one)
        elif len(batch) == 1:
            self._one(self._by_index[batch[0].index], made)
        else:  # the trouble of one item is not that of its neighbours
            for item, alone in self.executor.map(self.task, self._asked([item] for item in batch), self._watch):
                self._take(item, alone)

    def _one(self, target: OutputFile, made: Result | DitError) -> None:
        if self.outcome.stopped_by is not None:
            return
        self._advance(target.item.index, target.item.weight)
        if isinstance(made, DitError):
            self._fail(target, made)
            return
        try:
            written = None if made.content is None else self.outputs.write(target, made.content)
            if made.content is not None and written is None:
                target.state = "exists"
                self._skip(target)
                return
            path = target.path if made.content is not None else None
            self.outcome.files += self.task.finished(target.item, path, made)
        except DitError as error:
            self._fail(target, error)
            return
        self.outcome.written.append(written or "-")
        self._tell("item", target, path=written, **{**target.item.told, **made.facts})

    def _skip(self, target: OutputFile) -> None:
        assert target.path is not None, "stdout keeps nothing"
        self.outcome.skipped += 1
        self.task.skipped(target.item, target.path)
        self._tell("skip", target, path=target.shown, reason=REASONS[target.state])

    def _fail(self, target: OutputFile, error: DitError) -> None:
        item = target.item
        self.outcome.failed.append((item.source or target.shown, error))
        self.outputs.failed(target, error)
        if stops_run(error):
            self.outcome.stopped_by = error
        shown = {} if target.state == "failed" else {"path": target.shown}
        source = {"source": item.source} if item.source else {}
        self.listen(error_event(error, index=item.index + 1, **{**shown, **source, **item.told}))

    def _close(self) -> None:
        try:
            self.outcome.files += self.task.close()
        except DitError as error:
            name = error.message.partition(":")[0]
            self.outcome.failed.append((name, error))
            self.listen(error_event(error, path=name))

    def _tell(self, kind: str, target: OutputFile | None = None, **fields: Any) -> None:
        """Tell an event; a ``path`` of None is told, too: nothing was written."""
        index = {} if target is None else {"index": target.item.index + 1}
        nothing = {"path": None} if "path" in fields and fields["path"] is None else {}
        self.listen({**event(kind, **index, **fields), **nothing})

    # progress -------------------------------------------------------------------------------------

    def _quiet_bar(self, todo: Sequence[OutputFile]) -> bool:
        return self.quiet or sum(target.item.weight for target in todo) < 2

    def _watch(self, batch: Batch) -> Report:
        """What a batch tells its progress to: each item's share of it moves the bar."""

        def report(share: float) -> None:
            for item in batch:
                self._advance(item.index, round(item.weight * share))

        return report

    def _advance(self, index: int, done: int) -> None:
        target = self._by_index[index]
        if done > target.shown_progress:
            self._bar.update(done - target.shown_progress)
            target.shown_progress = done
