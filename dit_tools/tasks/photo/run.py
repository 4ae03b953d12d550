"""What the commands for photographs share: files, names, records, sheets, references, resuming."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools import __version__
from dit_tools.core.errors import UsageError
from dit_tools.jobs.events import Listener
from dit_tools.jobs.inputs import expand
from dit_tools.jobs.manifest import Manifest, key_of
from dit_tools.jobs.names import destination
from dit_tools.jobs.outputs import manifest_folder
from dit_tools.jobs.record import base_name, versions
from dit_tools.jobs.runner import Batch, Item, Places
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
class Run:
    """Takes a photograph from its file to the file of the result.

    A command fills in ``changed``, and ``options`` with everything that changes a result.
    """

    command: str
    word: str  # ends the name of a result that lies beside nothing else: photo-restored.png
    request: Request
    options: Mapping[str, Any]
    places: Places = field(init=False)
    quality: int | None = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        alone = destination(request.output, "{stem}").template == "{stem}.png"
        default = f"{{stem}}-{self.word}" if alone else "{stem}"
        self.places = Places(request.output, default, request.overwrite, request.skip_existing)
        self.quality = _quality(request.quality)
        if request.format:
            image.format_of("-", request.format)
        if request.compare and request.output == "-":
            raise UsageError("--compare: writes a sheet beside the result", "give -o a file or a folder/")

    @abstractmethod
    def changed(self, photo: Photo, item: Item) -> tuple[Photo, dict[str, Any]]:
        """The result, and what the event and the record should say of it."""

    def revision(self) -> str:
        """What the results depend on beside the options; empty for nothing."""
        return ""

    def batch(self, listen: Listener) -> Batch:
        """The run over every input. Raises the DitError of a fault of the request."""
        request = self.request
        found = expand(request.pictures)
        self.places.single(len(found))
        folder = manifest_folder(request.output)
        self.places.manifest = Manifest(folder) if folder else None
        ending = image.suffix(image.format_of("-", request.format))
        items = []
        for index, path in enumerate(found):
            name = self.places.claim(ending, {"stem": path.stem, "index": index + 1})
            kind = image.format_of(name or "-", request.format if name is None else None)
            if request.format and kind != image.format_of("-", request.format):
                raise UsageError(f"--format {request.format}: -o {name} is a {kind} file", "give one of them")
            items.append(Item(str(path), name, kind, self._key(path, kind)))
        return Batch(self.command, items, self.places, self.make, listen, request.quiet)

    def _key(self, path: Path, kind: str) -> str:
        """What a result depends on: options, model, and the source as the file system knows it."""
        if self.places.manifest is None:
            return ""
        facts = os.stat(path)
        source = {"source": os.path.abspath(path), "size": facts.st_size, "modified": facts.st_mtime_ns}
        shape = {"format": kind, "quality": self.quality, "metadata": self.request.metadata}
        return key_of({"command": self.command, **self.options, **source, **shape, "revision": self.revision()})

    def make(self, item: Item) -> tuple[str, dict[str, Any]]:
        """Make and write one result; its path and the facts of its event."""
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
        if wanted is not None:  # before the file is written: a reference of another size is an error
            facts |= references.measured(made, wanted)
        path = self.places.deliver(item.path, content)
        if self.request.compare:
            facts["sheet"] = str(write_sheet(Path(path), photo, made, wanted, self.places))
        return path, {**facts, "note": "; ".join(notes) or None}

    def _record(self, item: Item, facts: Mapping[str, Any]) -> dict[str, Any]:
        made = {
            "version": VERSION, "command": self.command, "dit_version": __version__,
            "source": Path(item.source).name, **self.options, **facts, "versions": versions(str(facts.get("backend", "onnx"))),
        }  # fmt: skip
        return {key: value for key, value in made.items() if value is not None}


@dataclass
class NetworkRequest(Request):
    """What the commands with a network take as well."""

    strength: float = 1.0
    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    tile: int | None = None


@dataclass
class NetworkRun(Run):
    """A run with a network, which is looked up at once and opened with the first photograph."""

    request: NetworkRequest
    model: PhotoModel = field(kw_only=True)

    def revision(self) -> str:
        """The fingerprint of the weights."""
        return self.model.revision

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
