"""Repeating the run that a picture's record describes, and comparing the two pictures."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from dit_tools import __version__
from dit_tools.core.errors import DitError, ExitCode, InputError, ModelError
from dit_tools.jobs.atomic import atomic_write
from dit_tools.jobs.events import Listener, Outcome, error_event, event
from dit_tools.jobs.expand import Job
from dit_tools.jobs.interrupt import Interruptible
from dit_tools.jobs.models import Known, Load, Loader, look_up
from dit_tools.jobs.names import Destination, Names, destination
from dit_tools.jobs.options import read_values
from dit_tools.jobs.outputs import check_folder
from dit_tools.jobs.progress import bar
from dit_tools.jobs.record import make_record, options_of
from dit_tools.jobs.result import layers
from dit_tools.jobs.settings import merge
from dit_tools.media import image
from dit_tools.media.metadata import read_record
from dit_tools.tasks.generate.sample_batch import draw


@dataclass(frozen=True)
class Original:
    """A picture to repeat: its file, its record, its format, and the job that makes it again."""

    path: str
    record: Mapping[str, Any]
    format: str
    job: Job


def read_original(path: str, changes: Mapping[str, Any], index: int = 0) -> Original:
    """The job of a picture's record; ``changes`` are options that replace recorded ones.

    Raises InputError when the picture has no record or one that cannot be repeated.
    """
    record = read_record(path)
    if record is None:
        hint = "take what it says with dit generate --from-image"
        raise InputError(f"{path}: holds no 'dit' record", hint)
    if record.get("command", "generate") != "generate":
        raise InputError(f"{path}: made by dit {record['command']}", "only generate is repeated")
    if not isinstance(record.get("prompt"), str) or not isinstance(record.get("seed"), int):
        raise InputError(f"{path}: its 'dit' record has no prompt and seed", "give them by hand")
    # A graphics card is used where there is one; arithmetic on the CPU is repeated on the CPU.
    place = {"device": "cpu"} if record.get("device") == "cpu" else {}
    settings = merge([options_of(record, path), place, read_values(changes)])
    job = Job(index, record["prompt"], record["seed"], settings)
    return Original(path, record, image.read(path).format, job)


def check_revision(original: Original, known: Known) -> None:
    """Raise ModelError when the model on this machine is not the one that made the picture."""
    recorded = original.record.get("model_revision")
    if recorded and known.revision and recorded != known.revision:
        raise ModelError(
            f"{original.path}: made by revision {recorded} of {known.name}, here is {known.revision}",
            "get that revision and give it with -m, or repeat all the same with --force",
        )


@dataclass
class Replay:
    """Repeats pictures, each model loaded once. ``find`` and ``load`` as in ``assemble``.

    ``prepare`` checks everything before a model is loaded, ``start`` makes the pictures, and
    ``verdicts`` says of each what ``check`` found.
    """

    originals: Sequence[Original]
    output: str | None = None
    overwrite: bool = False
    check: bool = False
    min_psnr: float | None = None
    force: bool = False
    quiet: bool = False
    find: Callable[[Any], Known] = look_up
    load: Load | None = None
    stdout: BinaryIO | None = None
    verdicts: list[str] = field(default_factory=list)
    differs: ExitCode = ExitCode.OK

    def prepare(self) -> None:
        """Raise ModelError for a missing or another model, InputError for a bad place."""
        known: dict[str, Known] = {}
        for original in self.originals:
            settings = original.job.settings
            known.setdefault(settings.model, self.find(settings))
            if not self.force:
                check_revision(original, known[settings.model])
        self._names: dict[Destination, Names] = {}
        self._paths = [self._path(original) for original in self.originals]
        self._loader = Loader([original.job for original in self.originals], self.load)

    def _path(self, original: Original) -> Path | None:
        """Where the picture goes; None for stdout, and where only a comparison is wanted."""
        if self.output == "-" or (self.check and self.output is None):
            return None
        settings = original.job.settings
        suffix = image.suffix(settings.format or original.format)
        where = destination(self.output, "{stem}-replay", suffix)
        keep = "keep" if self.overwrite else "number"
        names = self._names.setdefault(where, Names(where, keep))
        stem = Path(original.path).stem
        values = {
            "stem": stem,
            "seed": original.job.seed,
            "index": original.job.index + 1,
            "prompt": original.job.prompt,
        }
        path = names.claim(values)
        check_folder(path, make=where.kind == "template")
        return path

    def start(self, listen: Listener) -> Outcome:
        """Make every picture again. Raises KeyboardInterrupt on the second Ctrl-C."""
        began, outcome, count = time.perf_counter(), Outcome(), len(self.originals)
        listen(event("start", command="replay", version=__version__, items=count, pending=count))
        with Interruptible() as signals, bar(count, "pictures", self.quiet) as progress:
            for original, path in zip(self.originals, self._paths, strict=True):
                if signals.stop_requested:
                    break
                try:
                    listen(self._one(original, path, outcome))
                except DitError as error:
                    outcome.failed.append((original.path, error))
                    listen(error_event(error, index=original.job.index + 1, path=original.path))
                progress.update(1)
            outcome.interrupted = signals.stop_requested
        outcome.seconds = time.perf_counter() - began
        listen(outcome.event(int(self.differs)))
        return outcome

    def _one(self, original: Original, path: Path | None, outcome: Outcome) -> dict[str, Any]:
        job, model = original.job, self._loader.model(original.job.settings)
        (drawn,) = draw(model, [job])
        kind = image.format_of(path) if path else job.settings.format or original.format
        record, pixels = make_record(drawn, model), layers(drawn, model.alpha)
        content = _encoded(original, pixels, kind, record)
        changed = drift(original, record)
        made: dict[str, Any] = {"original": original.path, "drift": changed or None}
        if self.check:  # in the original's own format, whatever is written
            again = _encoded(original, pixels, original.format, None)
            made |= self._compare(original, again, changed)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
        elif self.output == "-":
            stream = self.stdout or sys.stdout.buffer
            stream.write(content)
            stream.flush()
        outcome.written.append(str(path or "-"))
        shown = str(path) if path else "-" if self.output == "-" else None
        return {
            **event(
                "item",
                index=job.index + 1,
                prompt=job.prompt,
                seed=job.seed,
                **made,
                width=drawn.width,
                height=drawn.height,
                seconds=round(drawn.seconds, 3),
                record=record,
            ),
            "path": shown,
        }

    def _compare(self, original: Original, content: bytes, changed: str) -> dict[str, Any]:
        ratio = psnr(original.path, content)
        same = ratio == math.inf
        enough = same or (self.min_psnr is not None and (ratio or 0) >= self.min_psnr)
        if not enough:
            self.differs = ExitCode.FAILURE
        found = "another size" if ratio is None else "identical" if same else f"PSNR {ratio:.2f} dB"
        self.verdicts.append(f"{original.path}: {found}" + (f" ({changed})" if changed and not same else ""))
        finite = None if ratio is None or same else round(ratio, 2)
        return {"identical": same, **({} if finite is None else {"psnr": finite})}


def _encoded(original: Original, pixels: Any, kind: str, record: dict[str, Any] | None) -> bytes:
    quality = original.job.settings.quality if kind in image.QUALITY else None
    return image.encode(pixels, kind, quality=quality, record=record)


def psnr(path: str | Path, content: bytes) -> float | None:
    """Peak signal-to-noise ratio in dB of two pictures; infinite when equal.

    None when they differ in size or channels. Raises InputError when ``path`` cannot be read.
    """
    import numpy as np

    one, other = image.read(path).pixels, image.read(content).pixels
    if one.shape != other.shape:
        return None
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def drift(original: Original, now: Mapping[str, Any]) -> str:
    """What differs between two records and may change pixels, in words; empty: nothing."""
    parts = []
    for key in ("dit_version", "model_revision", "backend", "device", "dtype"):
        if original.record.get(key) != now.get(key):
            parts.append(f"{key} {original.record.get(key)} -> {now.get(key)}")
    before, after = original.record.get("versions") or {}, now.get("versions") or {}
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            parts.append(f"{name} {before.get(name)} -> {after.get(name)}")
    return ", ".join(parts)
