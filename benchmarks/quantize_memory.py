"""Peak memory of ``dit quantize`` on a synthetic model that is never loaded whole.

    python benchmarks/quantize_memory.py [--gb 4] [--scheme rtn:bits=4] [--folder /tmp]

A PixArt-shaped transformer of that many GB in half precision is written tensor by tensor, beside
the tiny text encoder and autoencoder of the tests, and packed without a verdict. Printed: bytes of
its largest layer in float32, and the highest anonymous memory of the process above what it had
before (pages of the weights' file, which the system can drop, are not counted), in MB. Linux only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
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

    from dit_tools.models import quantized
    from dit_tools.weights.stream import Writer
    from tests.support import pixart

    pixart.pipeline(folder)
    part = folder / "transformer"
    config = json.loads((part / "config.json").read_text(encoding="utf-8"))
    layers = max(round(weights / (16 * width**2)), 1)
    config |= {"num_attention_heads": 16, "attention_head_dim": width // 16,
               "cross_attention_dim": width, "num_layers": layers}  # fmt: skip
    (part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    state = quantized.empty(part, "PixArtTransformer2DModel").state_dict()
    entries = {name: ("F16", tuple(tensor.shape)) for name, tensor in state.items()}
    block = torch.randn(1 << 24).half()
    (part / quantized.FILE).unlink()
    with Writer(part / quantized.FILE, entries) as writer:
        for name, (_, shape) in entries.items():
            left = math.prod(shape)
            while left:
                writer.write(name, block[: min(left, len(block))])
                left -= min(left, len(block))
        writer.finish()
    return sum(math.prod(shape) for _, shape in entries.values())


def main() -> None:
    """Write, pack, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gb", type=float, default=4.0, help="size of the transformer's file")
    parser.add_argument("--scheme", default="rtn:bits=4")
    parser.add_argument("--folder", help="where to put some GB for the time being")
    a = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from dit_tools.core import spec
    from dit_tools.models.resolve import resolve
    from dit_tools.weights import run

    with tempfile.TemporaryDirectory(dir=a.folder) as folder:
        root = Path(folder)
        count = synthetic(root / "model", a.gb * 1e9 / 2)
        wanted = run.Wanted(root / "out", spec.parse("weights.quantize", a.scheme))
        source = resolve(str(root / "model"))
        began = time.perf_counter()
        with Peak() as peak:
            layers = run.preflight(source, wanted)
            run.write(source, wanted, layers, {}, lambda folder: {})
        seconds = time.perf_counter() - began
    print(f"weights: {count / 1e9:.2f} G, {2 * count / 1e9:.2f} GB; packed {layers.ratio:.3f}x")
    print(f"largest layer in float32: {4 * layers.largest / 1e6:.0f} MB")
    share = peak.bytes / (4 * layers.largest)
    print(f"peak above the start: {peak.bytes / 1e6:.0f} MB, {share:.2f}x of that layer "
          f"({'within' if share <= ALLOWED else 'ABOVE'} {ALLOWED})")  # fmt: skip
    print(f"seconds: {seconds:.0f}")


if __name__ == "__main__":
    main()
