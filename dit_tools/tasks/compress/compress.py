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
from dit_tools.jobs.events import Listener
from dit_tools.jobs.inputs import expand
from dit_tools.jobs.runner import Batch, Item, Places
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


def assemble(request: Request, listen: Listener) -> Batch:
    """The run of a request, checked before an image is read. Raises the DitError of its faults."""
    codec: Codec = spec.parse("codecs", request.method)
    request.goal.check()
    compare.check(request.compare)
    from_stdin = list(request.pictures) == [STDIN]
    found = [Path(STDIN)] if from_stdin else expand(request.pictures)
    output = STDIN if from_stdin and request.output is None else request.output
    if request.compare and output == STDIN:
        raise UsageError("--compare writes a sheet beside the result", "name a file with -o")
    places = Places(output, "{stem}", request.overwrite, request.skip_existing)
    places.single(len(found))
    items = [
        Item(str(path), places.claim(SUFFIX, {"stem": "stdin" if from_stdin else path.stem, "index": i + 1}))
        for i, path in enumerate(found)
    ]
    for item in items:
        if item.path is not None and item.path.suffix.lower() != SUFFIX:
            raise UsageError(f"-o {request.output}: a compressed image ends in {SUFFIX}", f"name it NAME{SUFFIX}")
    return Batch("compress", items, places, Work(request, codec, places).make, listen, request.quiet)


@dataclass
class Work:
    """Makes the files of a run."""

    request: Request
    codec: Codec
    places: Places
    network: Run | None = None

    def make(self, item: Item) -> tuple[str, dict[str, Any]]:
        """Read, code and write one image; the path and the facts of the event."""
        picture = image.read(sys.stdin.buffer.read() if item.source == STDIN else item.source)
        began = time.perf_counter()
        source = prepare(picture, item.source, self.request.strip)
        file, content = self._coded(source)
        seconds = round(time.perf_counter() - began, 3)
        height, width = file.size
        facts: dict[str, Any] = {
            "width": width,
            "height": height,
            "bytes": len(content),
            "bpp": round(len(content) * 8 / (height * width), 5),
            "setting": file.setting,
            "seconds": seconds,
            "note": source.note or None,
        }
        decoded = None
        if self.request.measured or self.request.compare:
            decoded = self._decoded(file)
            facts["psnr"] = measure.psnr(source.samples, decoded)
            facts["ms_ssim"] = measure.ms_ssim(source.samples, decoded)
        shown = self.places.deliver(item.path, content)
        if self.request.compare and decoded is not None and item.path is not None:
            sheet, facts["compared"] = compare.sheet(source.samples, decoded, len(content), facts, self.request.compare)
            beside = item.path.with_name(f"{item.path.stem}-compare.png")
            facts["sheet"] = str(self.places.write(beside, sheet))
        return shown, facts

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
