"""What the commands for photographs share: files, names, records, sheets, references, resuming."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools import __version__
from dit_tools.core.errors import UsageError
from dit_tools.jobs.events import Listener
from dit_tools.jobs.image_outputs import output_format
from dit_tools.jobs.inputs import expand_inputs, several
from dit_tools.jobs.items import Item, Report, Result, Task
from dit_tools.jobs.names import destination
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.record import base_name, versions
from dit_tools.jobs.runner import Runner
from dit_tools.media import image, samples
from dit_tools.media.metadata import VERSION
from dit_tools.media.samples import Photo
from dit_tools.models import photo as models
from dit_tools.models.photo import PhotoModel
from dit_tools.tasks.photo import reference as references
from dit_tools.tasks.photo.sheet import write_sheet


@dataclass
class Request:
    """Options that every command for photographs takes; None means that nothing was said."""

    pictures: Sequence[str]
    output: str | None = None
    format: str | None = None
    quality: str | None = None
    reference: str | None = None
    compare: bool = False
    metadata: bool = True
    overwrite: bool = False
    skip_existing: bool = False
    quiet: bool = False


@dataclass
class PhotoTask(Task):
    """Takes photographs from their files to the files of the results, one by one.

    A command fills in ``changed``. ``options`` holds everything that changes a result.
    """

    request: Request
    options: Mapping[str, Any]
    quality: int | None = field(init=False)
    counted = "images"

    def __post_init__(self) -> None:
        self.quality = _quality(self.request.quality)

    @abstractmethod
    def changed(self, photo: Photo, item: Item) -> tuple[Photo, dict[str, Any]]:
        """The result, and what the event and the record should say of it."""

    def more_inputs(self, source: Path) -> tuple[str, ...]:
        """Files besides the photograph whose contents decide its result."""
        return ()

    def make(self, items: Sequence[Item], report: Report) -> list[Result]:
        """See ``Task``."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Result:
        began = time.perf_counter()
        asked = self.request.reference
        wanted = references.load(asked, Path(item.source)) if asked else None
        photo = samples.load(item.source)
        notes = [photo.note] if photo.note else []
        made, facts = self.changed(photo, item)
        seconds = round(time.perf_counter() - began, 3)
        notes += [facts.pop("note")] if "note" in facts else []
        facts = {"width": made.size[1], "height": made.size[0], **facts, "seconds": seconds}
        if made.bits > 8 and item.data not in image.DEEP:
            notes.append(f"16 bits a sample become 8 in {item.data}")
        record = self._record(item, facts) if self.request.metadata else None
        content = samples.store(made, item.data, self.quality, record)
        if wanted is not None:
            facts |= references.measured(made, wanted)
        if notes:
            facts["note"] = "; ".join(notes)
        return Result(content, facts, (photo, made, wanted) if self.request.compare else None)

    def _record(self, item: Item, facts: Mapping[str, Any]) -> dict[str, Any]:
        made = {
            "version": VERSION,
            "command": self.command,
            "dit_version": __version__,
            "source": Path(item.source).name,
            **self.options,
            **facts,
            "versions": versions(str(facts.get("backend", "onnx"))),
        }
        return {key: value for key, value in made.items() if value is not None}

    def finished(self, item: Item, path: Path | None, result: Result) -> Sequence[str]:
        """The sheet of ``--compare``."""
        if not self.request.compare or path is None:
            return ()
        before, after, wanted = result.data
        result.data = None  # a run over a folder keeps no pixels
        return (str(write_sheet(path, before, after, wanted, self.request.overwrite)),)


def runner(task: PhotoTask, word: str, listen: Listener) -> Runner:
    """The run of a task over every input of its request.

    ``word`` ends the name of a result that lies where the photograph may lie: ``photo-restored.png``.
    Raises the DitError of a fault of the request.
    """
    request = task.request
    if request.compare and request.output == "-":
        raise UsageError("--compare: writes a sheet next to the result", "give -o a file or a folder/")
    if request.format:
        image.format_of("-", request.format)
    found = expand_inputs(request.pictures)
    resume = several(request.pictures, found)
    alone = destination(request.output, "{stem}").template == "{stem}.png"
    default = f"{{stem}}-{word}" if alone else "{stem}"
    outputs = Outputs(request.output, default, request.overwrite, request.skip_existing, resume)
    outputs.single(len(found))
    kind = output_format(request.output, request.format)
    shape = {"format": kind, "quality": task.quality, "metadata": request.metadata}
    items = [
        Item(
            index,
            str(path),
            kind,
            image.suffix(kind),
            {"stem": path.stem, "index": index + 1},
            identity={"command": task.command, **task.options, **shape, "source": path.name},
            inputs=(str(path), *task.more_inputs(path)),
            told={"source": str(path)},
        )
        for index, path in enumerate(found)
    ]
    return Runner(items, task, outputs, listen, quiet=request.quiet)


@dataclass
class NetworkRequest(Request):
    """What the commands with a network take as well."""

    strength: float = 1.0
    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    tile: int | None = None


@dataclass
class NetworkTask(PhotoTask):
    """A task with a network, which is looked up at once and opened with the first photograph."""

    request: NetworkRequest
    model: PhotoModel = field(kw_only=True)

    @property
    def tile(self) -> int:
        """Side of a tile in pixels; 0 for none."""
        return self.model.tile if self.request.tile is None else self.request.tile


def open_model(request: NetworkRequest, task: str) -> tuple[PhotoModel, dict[str, Any]]:
    """The network of a request, and what a record says of it. Raises what ``models.load`` raises."""
    if not 0 <= request.strength <= 1:  # NaN too
        raise UsageError(f"--strength {request.strength:g}: out of range", "give a number from 0 to 1")
    if request.tile is not None and request.tile != 0 and not 32 <= request.tile <= 8192:
        raise UsageError(f"--tile {request.tile}: out of range", "give 32 to 8192, or 0 for none")
    model = models.load(request.model, task, request.device, request.dtype)
    facts = {
        "model": base_name(request.model or task), "model_revision": model.revision, "backend": "onnx",
        "device": model.device, "dtype": model.dtype, "strength": request.strength,
    }  # fmt: skip
    return model, facts


def _quality(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100:
        raise UsageError(f"--quality {text[:20]}: out of range", "give a whole number from 1 to 100")
    return int(text)
