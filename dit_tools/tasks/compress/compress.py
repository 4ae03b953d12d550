"""The run of ``dit compress``: images to ``.dit`` files at a quality, a rate or a size."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.core.reading import read_at_most
from dit_tools.jobs.atomic import atomic_write
from dit_tools.jobs.events import Listener
from dit_tools.jobs.inputs import expand_inputs, several
from dit_tools.jobs.items import Item, Report, Result, Task
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.runner import Runner
from dit_tools.media import image
from dit_tools.media.dit_file import SUFFIX, DitFile
from dit_tools.media.wavelet.tables import FOLDER
from dit_tools.methods.codecs import Codec
from dit_tools.models.decoder_network import Run, open_network
from dit_tools.tasks.compress import compare, measure, rate
from dit_tools.tasks.compress.source import Source, prepare

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUALITY = 50.0
METHOD = "wavelet"
STDIN = "-"


@dataclass
class Request:
    """The command line of ``dit compress``."""

    pictures: Sequence[str]
    goal: rate.Goal = field(default_factory=rate.Goal)
    method: str = METHOD
    strip: bool = False
    compare: Sequence[str] = ()
    measured: bool = False  # decode every file again and tell its quality
    backend: str = "onnx"
    device: str = "cpu"
    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    quiet: bool = False


def assemble(request: Request, listen: Listener) -> Runner:
    """The run of a request, checked before an image is read. Raises the DitError of its faults."""
    codec: Codec = spec.parse("codecs", request.method)
    request.goal.check()
    compare.check(request.compare)
    piped = list(request.pictures) == [STDIN]
    found = [Path(STDIN)] if piped else expand_inputs(request.pictures)
    output = STDIN if piped and request.output is None else request.output
    if request.compare and output == STDIN:
        raise UsageError("--compare writes a sheet next to the result", "name a file with -o")
    resume = not piped and several(request.pictures, found)
    outputs = Outputs(output, "{stem}", request.overwrite, request.skip_existing, resume=resume)
    outputs.single(len(found))
    if Path(outputs.template(SUFFIX)).suffix.lower() not in ("", SUFFIX):
        raise UsageError(f"-o {request.output}: a compressed image ends in {SUFFIX}", f"name it NAME{SUFFIX}")
    identity = {
        "command": "compress",
        "method": spec.format(codec),
        "tables": codec.digest.hex(),
        "goal": vars(request.goal),
        "strip": request.strip,
    }
    items = [
        Item(
            index,
            str(path),
            suffix=SUFFIX,
            fields={"stem": "stdin" if piped else path.stem, "index": index + 1},
            identity={} if piped else {**identity, "source": path.name},
            inputs=() if piped else (str(path),),
            told={"source": str(path)},
        )
        for index, path in enumerate(found)
    ]
    return Runner(items, Compress(request, codec), outputs, listen, quiet=request.quiet)


@dataclass
class Compress(Task):
    """Codes images one by one."""

    request: Request
    codec: Codec
    network: Run | None = None
    command = "compress"
    counted = "images"
    unsent = ("network",)

    def make(self, items: Sequence[Item], report: Report) -> list[Result]:
        """See ``Task``."""
        return [self._one(item) for item in items]

    def _one(self, item: Item) -> Result:
        picture = image.read(self._piped() if item.source == STDIN else item.source)
        began = time.perf_counter()
        source = prepare(picture, item.source, self.request.strip)
        file, content = self._coded(source)
        height, width = file.size
        facts: dict[str, Any] = {
            "width": width,
            "height": height,
            "bytes": len(content),
            "bpp": round(len(content) * 8 / (height * width), 5),
            "setting": file.setting,
            "seconds": round(time.perf_counter() - began, 3),
        }
        if source.note:
            facts["note"] = source.note
        if not (self.request.measured or self.request.compare):
            return Result(content, facts)
        decoded = self._decoded(file)
        facts["psnr"] = measure.psnr(source.samples, decoded)
        facts["ms_ssim"] = measure.ms_ssim(source.samples, decoded)
        if not self.request.compare:
            return Result(content, facts)
        sheet, rows = compare.sheet(source.samples, decoded, len(content), facts, self.request.compare)
        return Result(content, {**facts, "compared": rows}, sheet)

    def finished(self, item: Item, path: Path | None, result: Result) -> Sequence[str]:
        """Write the sheet of a comparison next to its file."""
        if result.data is None or path is None:
            return ()
        beside = path.with_name(f"{path.stem}-compare.png")
        atomic_write(beside, result.data)
        return (str(beside),)

    def _piped(self) -> bytes:
        return read_at_most(sys.stdin.buffer, image.MAX_BYTES, "stdin: an image")

    def _coded(self, source: Source) -> tuple[DitFile, bytes]:
        """The file that meets the goal."""
        goal, pixels = self.request.goal, source.samples.shape[0] * source.samples.shape[1]

        def packed(setting: int) -> tuple[DitFile, bytes]:
            file = self.codec.pack(source.samples, setting)
            file = replace(file, flags=source.flags, extras=source.extras)
            return file, file.to_bytes()

        def sized(setting: int) -> tuple[int, tuple[DitFile, bytes]]:
            made = packed(setting)
            return len(made[1]), made

        def judged(setting: int) -> tuple[float, tuple[DitFile, bytes]]:
            made = packed(setting)
            return measure.psnr(source.samples, self._decoded(made[0])), made

        start = self.codec.setting_of(QUALITY if goal.quality is None else goal.quality)
        allowed = goal.bytes_for(pixels)
        if allowed is not None:
            return rate.fit_bytes(sized, allowed, self.codec.worst, start)[1]
        if goal.min_psnr is not None:
            return rate.fit_quality(judged, goal.min_psnr, self.codec.worst, start)[1]
        return packed(start)

    def _decoded(self, file: DitFile) -> NDArray:
        if self.network is None:
            self.network = open_network(FOLDER / "decoder.onnx", self.request.backend, self.request.device)
        return self.codec.unpack(file, self.network)
