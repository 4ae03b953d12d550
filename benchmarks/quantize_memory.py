"""Peak memory of ``dit quantize`` on a synthetic model that is never loaded whole.

    python benchmarks/quantize_memory.py [--gb 4] [--scheme rtn:bits=4] [--width 2304]
                                         [--steps 1] [--folder /tmp]

A PixArt-shaped transformer of that many GB in half precision is written tensor by tensor, alongside
the tiny text encoder and autoencoder of the tests, and packed without a verdict. Printed: bytes of
its largest layer in float32, what calibration holds at most (outputs of one block in all calls,
sums over the inputs of the layers that are watched), and the highest anonymous memory of the
process above what it had when the libraries were loaded (pages of the weights' file, which the
system can drop, are not counted), in MB. Calibrated schemes sample one prompt. Linux only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ALLOWED = 1.3  # of the largest layer
WIDTH = 2304  # of PixArt-Sigma XL


def anonymous() -> int:
    """Bytes of anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


class Peak:
    """Inside, ``bytes`` is the highest anonymous memory above that of the start."""

    def __enter__(self) -> Peak:
        self.start, self.bytes, self._done = anonymous(), 0, False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._done = True
        self._thread.join()

    def _watch(self) -> None:
        while not self._done:
            self.bytes = max(self.bytes, anonymous() - self.start)
            time.sleep(0.005)


def synthetic(folder: Path, weights: float, width: int = WIDTH) -> int:
    """Write a model whose transformer has about ``weights`` weights; returns how many."""
    import math

    import torch

    from dit_tools.models.loading import quantized
    from dit_tools.tasks.quantize.safetensors_writer import SafetensorsWriter
    from tests.support import pixart

    pixart.pipeline(folder)
    part = folder / "transformer"
    config = json.loads((part / "config.json").read_text(encoding="utf-8"))
    layers = max(round(weights / (16 * width**2)), 1)
    config |= {
        "num_attention_heads": 16,
        "attention_head_dim": width // 16,
        "cross_attention_dim": width,
        "num_layers": layers,
    }
    (part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    state = quantized.empty(part, "PixArtTransformer2DModel").state_dict()
    entries = {name: ("F16", tuple(tensor.shape)) for name, tensor in state.items()}
    block = torch.randn(1 << 24).half()
    (part / quantized.FILE).unlink()
    with SafetensorsWriter(part / quantized.FILE, entries) as writer:
        for name, (_, shape) in entries.items():
            left = math.prod(shape)
            while left:
                writer.write(name, block[: min(left, len(block))])
                left -= min(left, len(block))
        writer.finish()
    return sum(math.prod(shape) for _, shape in entries.values())


def main() -> None:
    """Write, pack, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=4.0, help="size of the transformer's file")
    parser.add_argument("--scheme", default="rtn:bits=4")
    parser.add_argument("--width", type=int, default=WIDTH, help="of the transformer")
    parser.add_argument("--steps", type=int, default=1, help="of sampling, for calibration")
    parser.add_argument("--folder", help="where to put some GB for the time being")
    a = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        root = Path(folder)
        count = synthetic(root / "model", a.gb * 1e9 / 2, a.width)
        warm(root, a.scheme, a.steps)
        began = time.perf_counter()
        with Peak() as peak, calibrating() as held:
            facts, layers = pack(root / "model", root / "out", a.scheme, a.steps)
        seconds = time.perf_counter() - began
    print(f"weights: {count / 1e9:.2f} G, {2 * count / 1e9:.2f} GB; packed {facts['ratio']:.3f}x")
    print(f"largest layer in float32: {4 * layers.largest / 1e6:.0f} MB")
    print(f"calibration held at most: {held.most / 1e6:.0f} MB")
    share = (peak.bytes - held.most) / (4 * layers.largest)
    print(
        f"peak above the start: {peak.bytes / 1e6:.0f} MB; without calibration's {share:.2f}x of "
        f"that layer ({'within' if share <= ALLOWED else 'ABOVE'} {ALLOWED})"
    )
    print(f"seconds: {seconds:.0f}")


def pack(model: Path, out: Path, scheme: str, steps: int) -> tuple[Any, Any]:
    """The facts of a packed model and its layers; by the command's own code."""
    from dit_tools.core import spec
    from dit_tools.models.loading.resolve import resolve
    from dit_tools.tasks.quantize import packed_folder, quantize

    source, trial = resolve(str(model)), quantize.EvalConfig(0, 1, steps, "cpu")
    wanted = packed_folder.QuantizeConfig(out, spec.parse("quantization", scheme))
    layers = packed_folder.preflight(source, wanted)
    return quantize.quantize(source, wanted, trial), layers


def warm(root: Path, scheme: str, steps: int) -> None:
    """The same on a tiny model, so that libraries are loaded and have their own memory."""
    synthetic(root / "tiny", 1e5, 64)
    pack(root / "tiny", root / "tiny-out", scheme, steps)


class Held:
    """What calibration holds, watched from outside."""

    most = 0


@contextmanager
def calibrating() -> Iterator[Held]:
    """Inside, ``most`` is what ``weights.streaming`` says that it holds, at its highest."""
    from dit_tools.tasks.quantize import layerwise

    held, plain = Held(), layerwise.Streamed.__getitem__

    def look(self: Any, name: str) -> Any:
        found = plain(self, name)
        held.most = max(held.most, self.nbytes)
        return found

    layerwise.Streamed.__getitem__ = look
    try:
        yield held
    finally:
        layerwise.Streamed.__getitem__ = plain


if __name__ == "__main__":
    main()
