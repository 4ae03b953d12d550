"""Repeating the run that an image's record describes, and comparing the two images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from dit_tools.core.errors import ExitCode, InputError, ModelError
from dit_tools.jobs.events import Listener, Outcome
from dit_tools.jobs.expand import Job
from dit_tools.jobs.image_outputs import output_format
from dit_tools.jobs.items import Item, Report, Result, Task
from dit_tools.jobs.models import KnownModel, Load, Loader, look_up
from dit_tools.jobs.options import read_values
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.record import make_record, options_of
from dit_tools.jobs.result import layers
from dit_tools.jobs.runner import Runner
from dit_tools.jobs.settings import merge_settings
from dit_tools.media import image
from dit_tools.media.metadata import read_record
from dit_tools.tasks.generate.sample_batch import sample_batch


@dataclass(frozen=True)
class Original:
    """An image to repeat: its file, its record, its format, and the job that makes it again."""

    path: str
    record: Mapping[str, Any]
    format: str
    job: Job


def read_original(path: str, changes: Mapping[str, Any], index: int = 0) -> Original:
    """The job of an image's record; ``changes`` are options that replace recorded ones.

    Raises InputError when the image has no record or one that cannot be repeated.
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
    settings = merge_settings([options_of(record, path), place, read_values(changes)])
    job = Job(index, record["prompt"], record["seed"], settings)
    return Original(path, record, image.read(path).format, job)


def check_revision(original: Original, known: KnownModel) -> None:
    """Raise ModelError when the model on this machine is not the one that made the image."""
    recorded = original.record.get("model_revision")
    if recorded and known.revision and recorded != known.revision:
        raise ModelError(
            f"{original.path}: made by revision {recorded} of {known.name}, here is {known.revision}",
            "get that revision and give it with -m, or repeat all the same with --force",
        )


@dataclass
class Replay(Task):
    """Repeats images, each model loaded once. ``find`` and ``load`` as in ``assemble``.

    ``prepare`` checks everything before a model is loaded, ``start`` makes the images, and
    ``verdicts`` says of each what ``check`` found.
    """

    originals: Sequence[Original]
    output: str | None = None
    overwrite: bool = False
    check: bool = False
    min_psnr: float | None = None
    force: bool = False
    quiet: bool = False
    find: Callable[[Any], KnownModel] = look_up
    load: Load | None = None
    stdout: BinaryIO | None = None
    verdicts: list[str] = field(default_factory=list)
    differs: ExitCode = ExitCode.OK
    command = "replay"
    unsent = ("stdout", "_loader", "_runner")
    _loader: Loader | None = None

    @property
    def writes(self) -> bool:
        """Whether the new images are kept: not where only a comparison is wanted."""
        return not self.check or self.output is not None

    def prepare(self) -> None:
        """Raise ModelError for a missing or another model, InputError for a bad place."""
        known: dict[str, KnownModel] = {}
        for original in self.originals:
            settings = original.job.settings
            known.setdefault(settings.model, self.find(settings))
            if not self.force:
                check_revision(original, known[settings.model])
        items = [self._item(original, known[original.job.settings.model]) for original in self.originals]
        output = self.output if self.writes else "-"
        outputs = Outputs(output, "{stem}-replay", self.overwrite, stdout=self.stdout, always=self.check)
        self._runner = Runner(items, self, outputs, lambda event: None, quiet=self.quiet)

    def _item(self, original: Original, known: KnownModel) -> Item:
        job, settings, stem = original.job, original.job.settings, Path(original.path).stem
        kind = output_format(self.output, settings.format, original.format)
        identity = {
            **settings.pixel_options(),
            "command": "replay",
            "model": known.name,
            "revision": known.revision,
            "prompt": job.prompt,
            "seed": job.seed,
            "source": Path(original.path).name,
            "format": kind,
        }
        fields = {"stem": stem, "seed": job.seed, "index": job.index + 1, "prompt": job.prompt}
        return Item(job.index, original.path, (original, kind), image.suffix(kind), fields, identity, (original.path,))

    def start(self, listen: Listener) -> Outcome:
        """Make every image again. Raises KeyboardInterrupt on the second Ctrl-C."""
        self._runner.listen = listen
        return self._runner.start()

    def make(self, items: Sequence[Item], report: Report) -> list[Result]:
        """See ``Task``."""
        if self._loader is None:
            self._loader = Loader([original.job for original in self.originals], self.load)
        return [self._one(self._loader, *item.data) for item in items]

    def _one(self, loader: Loader, original: Original, kind: str) -> Result:
        job, model = original.job, loader.model(original.job.settings)
        (drawn,) = sample_batch(model, [job])
        record, pixels = make_record(drawn, model), layers(drawn, model.alpha)
        content = _encoded(original, pixels, kind, record) if self.writes else None
        changed = differences(original, record)
        made: dict[str, Any] = {"prompt": job.prompt, "seed": job.seed, "original": original.path}
        made["drift"] = changed or None
        verdict = None
        if self.check:  # in the original's own format, whatever is written
            verdict, found = self._compare(original, _encoded(original, pixels, original.format, None), changed)
            made |= found
        made |= {"width": drawn.width, "height": drawn.height, "seconds": round(drawn.seconds, 3), "record": record}
        return Result(content, made, verdict)

    def finished(self, item: Item, path: Path | None, result: Result) -> tuple[()]:
        """See ``Task``: remembers what the comparison found."""
        if result.data is not None:
            enough, line = result.data
            self.verdicts.append(line)
            if not enough:
                self.differs = ExitCode.FAILURE
        return ()

    def verdict(self) -> int:
        """See ``Task``."""
        return int(self.differs)

    def _compare(self, original: Original, content: bytes, changed: str) -> tuple[tuple[bool, str], dict[str, Any]]:
        """Whether the images are near enough with a line that says so, and facts for the event."""
        ratio = psnr(original.path, content)
        same = ratio == math.inf
        enough = same or (self.min_psnr is not None and (ratio or 0) >= self.min_psnr)
        found = "another size" if ratio is None else "identical" if same else f"PSNR {ratio:.2f} dB"
        line = f"{original.path}: {found}" + (f" ({changed})" if changed and not same else "")
        finite = None if ratio is None or same else round(ratio, 2)
        return (enough, line), {"identical": same, **({} if finite is None else {"psnr": finite})}


def _encoded(original: Original, pixels: Any, kind: str, record: dict[str, Any] | None) -> bytes:
    quality = original.job.settings.quality if kind in image.QUALITY else None
    return image.encode(pixels, kind, quality=quality, record=record)


def psnr(path: str | Path, content: bytes) -> float | None:
    """Peak signal-to-noise ratio in dB of two images; infinite when equal.

    None when they differ in size or channels. Raises InputError when ``path`` cannot be read.
    """
    import numpy as np

    one, other = image.read(path).pixels, image.read(content).pixels
    if one.shape != other.shape:
        return None
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def differences(original: Original, now: Mapping[str, Any]) -> str:
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
