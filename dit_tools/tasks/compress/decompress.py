"""The run of ``dit decompress``: ``.dit`` files to images."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dit_tools.core import registry
from dit_tools.core.errors import DitError, MemoryLimitError, ModelError
from dit_tools.core.reading import read_at_most
from dit_tools.jobs.events import Listener
from dit_tools.jobs.image_outputs import output_format
from dit_tools.jobs.inputs import expand_inputs, several
from dit_tools.jobs.items import Item, Report, Result, Task
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.runner import Runner
from dit_tools.media import dit_file, image
from dit_tools.media.dit_file import DitFile
from dit_tools.media.wavelet.tables import FOLDER
from dit_tools.methods.codecs import Codec
from dit_tools.models.decoder_network import Run, open_network
from dit_tools.tasks.compress.source import encoded

STDIN = "-"


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


def assemble(request: Request, listen: Listener) -> Runner:
    """The run of a request, checked before a file is read. Raises the DitError of its faults."""
    piped = list(request.files) == [STDIN]
    found = [Path(STDIN)] if piped else expand_inputs(request.files, (dit_file.SUFFIX,))
    output = STDIN if piped and request.output is None else request.output
    format = output_format(output, request.format)
    resume = not piped and several(request.files, found)
    outputs = Outputs(output, "{stem}", request.overwrite, request.skip_existing, resume=resume)
    outputs.single(len(found))
    identity = {
        "command": "decompress",
        "format": format,
        "quality": request.quality,
        "thumbnail": request.thumbnail,
        "strip": request.strip,
    }
    items = [
        Item(
            index,
            str(path),
            suffix=image.suffix(format),
            fields={"stem": "stdin" if piped else path.stem, "index": index + 1},
            identity={} if piped else {**identity, "source": path.name},
            inputs=() if piped else (str(path),),
            told={"source": str(path)},
        )
        for index, path in enumerate(found)
    ]
    return Runner(items, Decompress(request, format), outputs, listen, quiet=request.quiet)


def load(source: str) -> DitFile:
    """Read a ``.dit`` file, or stdin for ``-``. Raises InputError."""
    if source == STDIN:
        return dit_file.parse(read_at_most(sys.stdin.buffer, dit_file.MOST_BYTES, "stdin: a .dit file"), "stdin")
    return dit_file.parse(dit_file.read(Path(source)), source)


def codec_of(file: DitFile, name: str) -> Codec:
    """The codec that made a file. Raises ModelError for an unknown one."""
    for method in registry.names("codecs"):
        cls = registry.get("codecs", method)
        if cls.number == file.codec:
            return cls()
    raise ModelError(f"{name}: codec {file.codec} is not known here", "update dit")


@dataclass
class Decompress(Task):
    """Decodes ``.dit`` files one by one."""

    request: Request
    format: str
    network: Run | None = None
    command = "decompress"
    counted = "images"
    unsent = ("network",)

    def make(self, items: Sequence[Item], report: Report) -> list[Result]:
        """See ``Task``."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Result:
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
            file = replace(file, extras={k: part for k, part in file.extras.items() if k == "alpha"})
        content = encoded(samples, file, self.format, self.request.quality)
        height, width = samples.shape[:2]
        return Result(content, {"width": width, "height": height, "decoded_bytes": len(content), "seconds": seconds})

    def _network(self) -> Run:
        if self.network is None:
            self.network = open_network(FOLDER / "decoder.onnx", self.request.backend, self.request.device)
        return self.network
