"""The run: batch after batch, each picture written as soon as it is drawn."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from dit_tools import __version__
from dit_tools.core.errors import DitError
from dit_tools.jobs import memory
from dit_tools.jobs.events import Listener, Outcome, error_event, event
from dit_tools.jobs.expand import Job
from dit_tools.jobs.interrupt import Interruptible
from dit_tools.jobs.models import Load, Loader
from dit_tools.jobs.outputs import Outputs, Target, stops_run
from dit_tools.jobs.progress import bar
from dit_tools.jobs.record import make_record
from dit_tools.jobs.result import Drawn, layers
from dit_tools.jobs.sweep import Axis
from dit_tools.media import image
from dit_tools.models.model import Model
from dit_tools.tasks.generate import sheets
from dit_tools.tasks.generate.batching import batches
from dit_tools.tasks.generate.compare import Comparison
from dit_tools.tasks.generate.sample_batch import draw
from dit_tools.tasks.generate.tune_cache import Tuner


@dataclass
class Options:
    """What a run does besides its pictures."""

    batch_size: int = 1
    grid: str | None = None
    save_steps: str | None = None
    fps: float = 10.0
    preview: bool = False
    metadata: bool = True
    quiet: bool = False
    compare: bool = False  # also make every picture without the cache, and tell the difference
    stdout: BinaryIO | None = None  # where ``-o -`` writes; None: the process's own


@dataclass
class Run:
    """One run over targets; ``start`` does it and gives the outcome."""

    targets: Sequence[Target]
    axes: Sequence[Axis]
    outputs: Outputs
    options: Options
    listen: Listener
    load: Load | None = None
    outcome: Outcome = field(default_factory=Outcome)

    def start(self) -> Outcome:
        """Make every picture that is not there yet.

        A picture that fails is told to the listener, and the run goes on; a full disk or a
        read-only folder ends it. Raises KeyboardInterrupt on the second Ctrl-C.
        """
        began = time.perf_counter()
        todo = {t.job.index: t for t in self.targets if t.state == "make"}
        self.listen(event("start", command="generate", version=__version__, items=len(self.targets), pending=len(todo)))
        self._steps = sheets.Animations(self.options.save_steps, self.outputs.overwrite, self.options.fps)
        self._comparison, self._tuner = Comparison(), Tuner()
        self._sheet = sheets.Sheet(self.options.grid, self.axes, self.outputs)
        for target in self.targets:
            if target.state != "make":
                self._skip(target)
        with Interruptible() as signals, self._bar(todo.values()) as progress:
            loader = Loader([t.job for t in todo.values()], self.load)
            for batch in batches([t.job for t in todo.values()], self.options.batch_size):
                if signals.stop_requested or self.outcome.stopped_by is not None:
                    break
                self._batch(loader, [todo[job.index] for job in batch], progress)
            self.outcome.interrupted = signals.stop_requested
        if not self.outcome.interrupted:
            self._finish()
        self.outcome.seconds = time.perf_counter() - began
        self.listen(self.outcome.event())
        return self.outcome

    def _bar(self, todo: Iterable[Target]) -> Any:
        steps = sum(target.steps for target in todo)
        return bar(steps, "steps", self.options.quiet or steps == 0)

    def _skip(self, target: Target) -> None:
        self.outcome.skipped += 1
        self._sheet.add(target.job, target.path)
        reason = "it exists" if target.state == "exists" else "done before"
        self.listen(event("skip", index=target.job.index + 1, path=target.shown, reason=reason))

    def _batch(self, loader: Loader, targets: list[Target], progress: Any) -> None:
        done, whole = 0, sum(target.steps for target in targets)

        def step(index: int, total: int) -> None:
            nonlocal done
            progress.update(whole * index // total - done)
            done = whole * index // total

        try:
            model = loader.model(targets[0].job.settings)
            frames = self.options.save_steps is not None
            jobs, tuned = self._tuner.of(model, [t.job for t in targets])
            with memory.watched(model.device, self.options.compare) as peak:
                drawn = draw(model, jobs, step, frames)
            extra = [dict(tuned) for _ in drawn]
            if self.options.compare:
                for one, found in zip(extra, self._comparison.of(model, drawn, peak), strict=True):
                    one["compare"] = found
        except DitError as error:
            progress.update(-done)
            if len(targets) == 1:
                progress.update(whole)
                self._failed(targets[0], error)
                return
            for target in targets:  # one picture's trouble is not that of its neighbours
                self._batch(loader, [target], progress)
            return
        for i, (target, picture) in enumerate(zip(targets, drawn, strict=True)):
            self._picture(model, target, picture, extra[i])

    def _picture(self, model: Model, target: Target, drawn: Drawn, extra: dict[str, Any]) -> None:
        if self.outcome.stopped_by is not None:
            return
        try:
            pixels = layers(drawn, model.alpha)
            record = make_record(drawn, model, extra)
            content = image.encode(
                pixels,
                target.format,
                quality=drawn.job.settings.quality,
                record=record if self.options.metadata else None,
            )
            shown = self._deliver(target, content)
            self._steps.write(drawn, target, self.outcome)
        except DitError as error:
            self._failed(target, error)
            if stops_run(error):
                self.outcome.stopped_by = error
            return
        self._sheet.add(target.job, pixels if target.path is None else shown)
        self.outcome.written.append(str(shown))
        self.listen(
            event(
                "item",
                index=target.job.index + 1,
                path=str(shown),
                prompt=drawn.job.prompt,
                seed=drawn.job.seed,
                width=drawn.width,
                height=drawn.height,
                seconds=round(drawn.seconds, 3),
                record=record,
                **_unread(model, drawn.job),
            )
        )
        if self.options.preview:
            sheets.show(pixels)

    def _deliver(self, target: Target, content: bytes) -> Any:
        if target.path is not None:
            return self.outputs.write(target, content)
        stream = self.options.stdout or sys.stdout.buffer
        stream.write(content)
        stream.flush()
        return "-"

    def _failed(self, target: Target, error: DitError) -> None:
        self.outcome.failed.append((target.shown, error))
        if self.outputs.manifest is not None and not stops_run(error):
            self.outputs.manifest.add_failure(target.key, str(error))
        job: Job = target.job
        self.listen(error_event(error, index=job.index + 1, path=target.shown, prompt=job.prompt, seed=job.seed))

    def _finish(self) -> None:
        try:
            self.outcome.files += self._sheet.write()
        except DitError as error:
            self.outcome.failed.append((self._sheet.name, error))
            self.listen(error_event(error, path=self._sheet.name))


def _unread(model: Model, job: Job) -> dict[str, str]:
    """The end of the prompt that the model does not read, for the event."""
    find = getattr(model.encode, "unread", None)
    rest = find(job.prompt, job.settings.max_tokens) if find else ""
    return {"unread": rest} if rest else {}
