"""The work of ``dit generate``: batches of images, each with its record; sheets and videos next to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from dit_tools.core.errors import DitError
from dit_tools.jobs import memory
from dit_tools.jobs.expand import Job
from dit_tools.jobs.image_outputs import check_transparency, name_fields, output_format
from dit_tools.jobs.items import Item, Report, Result, Task
from dit_tools.jobs.models import KnownModel, Load, Loader
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.record import make_record
from dit_tools.jobs.result import GeneratedImage, layers
from dit_tools.jobs.settings import Settings
from dit_tools.jobs.sweep import Axis
from dit_tools.media import image
from dit_tools.models.model import Model
from dit_tools.tasks.generate import sheets
from dit_tools.tasks.generate.batching import batches
from dit_tools.tasks.generate.compare import Comparison
from dit_tools.tasks.generate.sample_batch import sample_batch
from dit_tools.tasks.generate.tune_cache import Tuner


@dataclass
class Options:
    """What a run does besides its images."""

    batch_size: int = 1
    grid: str | None = None
    save_steps: str | None = None
    fps: float = 10.0
    preview: bool = False
    metadata: bool = True
    quiet: bool = False
    compare: bool = False  # also make every image without the cache, and tell the difference
    stdout: BinaryIO | None = None  # where ``-o -`` writes; None: the process's own


def items_of(
    jobs: Sequence[Job],
    axes: Sequence[Axis],
    known: Mapping[str, KnownModel],
    output: str | None,
    metadata: bool = True,
) -> list[Item]:
    """An item for every job, in order. ``known``: model reference -> what is known of it.

    Raises UsageError for a format that ``-o`` contradicts or that holds no transparency.
    """
    formats: dict[str | None, str] = {}
    options = cache(Settings.pixel_options)  # shared by the seeds of a prompt, of which there may be 100,000
    made = []
    for job in jobs:
        settings, model = job.settings, known[job.settings.model]
        if settings.format not in formats:
            formats[settings.format] = output_format(output, settings.format)
        kind = formats[settings.format]
        check_transparency(settings, kind)
        steps = settings.steps or (model.defaults.steps if model.defaults else 20)
        identity = {
            "options": options(settings),
            "model": model.name,
            "revision": model.revision,
            "prompt": job.prompt,
            "seed": job.seed,
            "format": kind,
            **({} if metadata else {"metadata": False}),
        }
        told = {"prompt": job.prompt, "seed": job.seed}
        suffix = image.suffix(settings.format or "png")
        fields = name_fields(job, axes, model)
        made.append(Item(job.index, "", (job, kind), suffix, fields, identity, (), told, steps))
    return made


@dataclass
class GenerateImages(Task):
    """Makes the images of a run, and what goes along with them."""

    axes: Sequence[Axis]
    outputs: Outputs
    options: Options
    load: Load | None = None
    command = "generate"
    counted = "steps"
    unsent = ("_loader", "_comparison", "_tuner", "_films", "_sheet", "outputs")
    _loader: Loader | None = None
    _comparison: Comparison | None = None
    _tuner: Tuner | None = None
    _todo: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._films = sheets.Animations(self.options.save_steps, self.outputs.overwrite, self.options.fps)
        self._sheet = sheets.Sheet(self.options.grid, self.axes, self.outputs)

    # making ---------------------------------------------------------------------------------------

    def batches(self, items: Sequence[Item]) -> Iterable[Sequence[Item]]:
        """Neighbours with the same model, plan and size; the models' needs are those of what is missing."""
        by_index = {item.index: item for item in items}
        self._todo = [item.data[0] for item in items]
        for batch in batches(self._todo, self.options.batch_size):
            yield [by_index[job.index] for job in batch]

    def make(self, items: Sequence[Item], report: Report) -> list[Result | DitError]:
        """See ``Task``."""
        if self._loader is None:
            self._loader = Loader(self._todo, self.load)
        self._tuner = self._tuner or Tuner()
        model = self._loader.model(items[0].data[0].settings)
        jobs, tuned = self._tuner.of(model, [item.data[0] for item in items])
        with memory.measure_peak(model.device, self.options.compare) as peak:
            frames = self.options.save_steps is not None
            drawn = sample_batch(model, jobs, lambda index, total: report(index / total), frames)
        extra: list[dict[str, Any]] = [dict(tuned) for _ in drawn]
        if self.options.compare:
            self._comparison = self._comparison or Comparison()
            for one, found in zip(extra, self._comparison.of(model, drawn, peak), strict=True):
                one["compare"] = found
        return list(self._encoded(model, items, drawn, extra))

    def _encoded(
        self, model: Model, items: Sequence[Item], drawn: Sequence[GeneratedImage], extra: Sequence[dict[str, Any]]
    ) -> Iterator[Result | DitError]:
        """Each image as a file; one that cannot be encoded does not stop the others."""
        for item, one, more in zip(items, drawn, extra, strict=True):
            try:
                yield self._result(model, item.data[1], one, more)
            except DitError as error:
                yield error

    def _result(self, model: Model, kind: str, drawn: GeneratedImage, extra: dict[str, Any]) -> Result:
        pixels = layers(drawn, model.alpha)
        record = make_record(drawn, model, extra)
        content = image.encode(
            pixels, kind, quality=drawn.job.settings.quality, record=record if self.options.metadata else None
        )
        facts = {
            "width": drawn.width,
            "height": drawn.height,
            "seconds": round(drawn.seconds, 3),
            "record": record,
            **_unread(model, drawn.job),
        }
        return Result(content, facts, (pixels, drawn.frames))

    # next to the images ----------------------------------------------------------------------------

    def skipped(self, item: Item, path: Path) -> None:
        """See ``Task``: a sheet shows what was there, too."""
        self._sheet.add(item.data[0], path)

    def finished(self, item: Item, path: Path | None, result: Result) -> list[str]:
        """See ``Task``: the video of the steps, the cell of the sheet, the preview."""
        job, (pixels, frames) = item.data[0], result.data
        written = self._films.write(job, frames)
        self._sheet.add(job, pixels if path is None else path)
        if self.options.preview:
            sheets.show_image(pixels)
        return written

    def close(self) -> list[str]:
        """See ``Task``: the sheet."""
        return self._sheet.write()


def _unread(model: Model, job: Job) -> dict[str, str]:
    """The end of the prompt that the model does not read, for the event."""
    find = getattr(model.encode, "unread", None)
    rest = find(job.prompt, job.settings.max_tokens) if find else ""
    return {"unread": rest} if rest else {}
