"""The run of ``dit decompress``: ``.dit`` files to images."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.core import registry
from dit_tools.core.errors import DitError, InputError, MemoryLimitError, ModelError, UsageError
from dit_tools.jobs.events import Listener
from dit_tools.jobs.inputs import expand
from dit_tools.jobs.names import destination
from dit_tools.jobs.runner import Batch, Item, Places
from dit_tools.media import dit_file, image
from dit_tools.media.dit_file import DitFile
from dit_tools.media.wavelet.tables import FOLDER
from dit_tools.methods.codecs import Codec
from dit_tools.models.decoder_network import Run, open_network
from dit_tools.tasks.compress.source import encoded

STDIN = "-"
MOST_BYTES = 1 << 29
"""Of a ``.dit`` file that is read."""


@dataclass
class Request:
    """The command line of ``dit decompress``."""

    files: Sequence[str]
    thumbnail: int | None = None
    format: str | None = None
    quality: int | None = None
    strip: bool = False
    backend: str = "onnx"
    device: str = "cpu"
    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    quiet: bool = False


def assemble(request: Request, listen: Listener) -> Batch:
    """The run of a request, checked before a file is read. Raises the DitError of its faults."""
    from_stdin = list(request.files) == [STDIN]
    found = [Path(STDIN)] if from_stdin else expand(request.files, (dit_file.SUFFIX,))
    output = STDIN if from_stdin and request.output is None else request.output
    format = _format(output, request.format)
    places = Places(output, "{stem}", request.overwrite, request.skip_existing)
    places.single(len(found))
    items = [
        Item(str(path), places.claim(image.suffix(format), {"stem": "stdin" if from_stdin else path.stem, "index": i}))
        for i, path in enumerate(found, 1)
    ]
    work = Work(request, format, places)
    return Batch("decompress", items, places, work.make, listen, request.quiet)


def _format(output: str | None, asked: str | None) -> str:
    where = destination(output, "{stem}", "")
    named = where.template if where.kind != "stdout" else "-"
    if not Path(named).suffix:
        named = "-"
    format = image.format_of(named, asked)
    if asked and named != "-" and image.format_of(named) != format:
        raise UsageError(f"--format {asked}: -o {output} is a {image.format_of(named)} file", "give one of them")
    return format


def load(source: str) -> DitFile:
    """Read a ``.dit`` file, or stdin for ``-``. Raises InputError."""
    if source == STDIN:
        return dit_file.parse(sys.stdin.buffer.read(MOST_BYTES), "stdin")
    path = Path(source)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: over {MOST_BYTES} bytes", "it is no image that dit compressed")
        return dit_file.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", "check the path") from None


def codec_of(file: DitFile, name: str) -> Codec:
    """The codec that made a file. Raises ModelError for an unknown one."""
    for method in registry.names("codecs"):
        cls = registry.get("codecs", method)
        if cls.number == file.codec:
            return cls()
    raise ModelError(f"{name}: codec {file.codec} is not known here", "update dit")


@dataclass
class Work:
    """Decodes the files of a run."""

    request: Request
    format: str
    places: Places
    network: Run | None = None

    def make(self, item: Item) -> tuple[str, dict[str, Any]]:
        """Read, decode and write one image; the path and the facts of the event."""
        file = load(item.source)
        codec = codec_of(file, item.source)
        began = time.perf_counter()
        try:
            if self.request.thumbnail is not None:
                file = file.without_extras()
                samples = codec.thumbnail(file, self.request.thumbnail)
            else:
                samples = codec.unpack(file, self._network())
        except DitError as error:
            raise type(error)(f"{item.source}: {error.message}", error.hint) from None
        except MemoryError:
            raise MemoryLimitError(f"{item.source}: does not fit into memory", "use a larger machine") from None
        seconds = round(time.perf_counter() - began, 3)
        if self.request.strip:
            kept = {name: part for name, part in file.extras.items() if name == "alpha"}
            file = DitFile(**{**vars(file), "extras": kept})
        content = encoded(samples, file, self.format, self.request.quality)
        height, width = samples.shape[:2]
        facts = {"width": width, "height": height, "decoded_bytes": len(content), "seconds": seconds}
        return self.places.deliver(item.path, content), facts

    def _network(self) -> Run:
        if self.network is None:
            self.network = open_network(FOLDER / "decoder.onnx", self.request.backend, self.request.device)
        return self.network
