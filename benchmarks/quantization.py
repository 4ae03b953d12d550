"""What each scheme of ``dit quantize`` costs and saves, against rounding to the nearest.

    python benchmarks/quantization.py [--model emoji64] [--prompts 8] [--json] [SPEC ...]

The full network (PyTorch, float32) draws the prompts once; every scheme then draws them from the
same seeds. Printed: size of the transformer's weights as a share of float32, PSNR (mean, worst) and
SSIM to the full pictures, the rise of the denoising error on those pictures, and whether a scheme
beats rounding to the nearest at its bits, by denoising error. Calibration uses other prompts than
the comparison. Layers outside of the blocks are as ``dit quantize`` has them. Specs given as
arguments are measured instead of the list.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SCHEMES = {
    "rtn": "", "fp8": "rtn", "rtn:act=8": "", "vidit-q": "rtn:act=8",
    "rtn:bits=4": "", "q-diffusion:inputs=random": "rtn:bits=4",
    "q-diffusion": "q-diffusion:inputs=random",
    "svd": "rtn:bits=4", "fp4:iterations=0": "rtn:bits=4", "fp4": "fp4:iterations=0",
    "rtn:bits=4,act=8": "", "vidit-q:bits=4": "rtn:bits=4,act=8",
    "q-diffusion:act=8": "rtn:bits=4,act=8",
    "rtn:bits=3": "", "q-diffusion:bits=3": "rtn:bits=3", "vq4dit:bits=3": "rtn:bits=3",
    "rtn:bits=2,zero=true": "", "vq4dit:iterations=0": "rtn:bits=2,zero=true",
    "vq4dit": "vq4dit:iterations=0",
}  # fmt: skip
"""Scheme -> the one that it must beat; empty for those that others are measured by."""


@dataclass(frozen=True)
class Row:
    """One scheme. ``psnr`` in dB, ``loss``: rise of the denoising error in dB."""

    scheme: str
    rival: str
    ratio: float
    psnr: float
    psnr_worst: float
    ssim: float
    loss: float


def verdicts(rows: Sequence[Row]) -> dict[str, bool]:
    """Scheme -> whether it loses less than its rival, of those whose rival was measured."""
    losses = {row.scheme: row.loss for row in rows}
    return {row.scheme: row.loss < losses[row.rival] for row in rows if row.rival in losses}


class Bench:
    """A model, its full pictures and probes, and what its layers see, each made once."""

    def __init__(self, reference: str, prompts: Sequence[str], calibration: int, steps: int | None):
        from dit_tools.models.load import load
        from dit_tools.models.resolve import resolve
        from dit_tools.weights import probing

        self.source = resolve(reference)
        self.model = load(reference, backend="torch", device="cpu")
        self.prompts, self.steps = prompts, steps
        self.calibration = probing.default_prompts(self.model, calibration, skip=5)
        self.full = list(probing.draw(self.model, prompts, steps))
        self.probes = probing.probes(self.model, self.full)
        self.noise = [probe.noise for probe in self.probes]
        self.base = self._error()
        self._seen: dict[str, Mapping[str, Any]] = {"": {}}

    def _error(self) -> float:
        from dit_tools.weights import probing

        return probing.mean_square(probing.predicted(self.model, self.probes), self.noise)

    def seen(self, how: str, layers: Any) -> Mapping[str, Any]:
        """What layers are fed, by the kind of calibration."""
        from dit_tools.weights import calibrate

        if how not in self._seen:
            self._seen[how] = calibrate.observe(
                self.model, layers, how, self.calibration, self.steps
            )
        return self._seen[how]

    def measure(self, text: str, rival: str = "") -> Row:
        """One scheme."""
        import numpy as np

        from dit_tools.core import spec
        from dit_tools.metrics.psnr import Psnr
        from dit_tools.metrics.ssim import WINDOW, Ssim
        from dit_tools.weights import allocate, probing, run

        wanted = run.Wanted(Path("."), spec.parse("weights.quantize", text))
        layers = run.preflight(self.source, wanted, dry=True)
        seen = self.seen(wanted.scheme.calibration, layers)
        chosen = {layer.name: (layer, layer.packer) for layer in layers.linear if layer.layout}
        with allocate.packed(self.model, chosen, seen):
            loss = probing.loss_db(self.base, self._error())
            drawn = list(probing.draw(self.model, self.prompts, self.steps))
        a, b = (np.stack([one.pixels for one in many]) for many in (self.full, drawn))
        psnr = Psnr().of(a, b)
        ssim = Ssim().mean(a, b) if min(a.shape[2:]) >= WINDOW else math.nan
        return Row(text, rival, layers.ratio, psnr.mean(), psnr.min(), ssim, loss)


def line(row: Row, better: Mapping[str, bool]) -> str:
    """A row of the table."""
    word = {True: f"better than {row.rival}", False: f"WORSE than {row.rival}", None: ""}
    return (
        f"{row.scheme:26} {row.ratio:6.3f} {row.psnr:6.1f} {row.psnr_worst:6.1f} {row.ssim:7.4f} "
        f"{row.loss:+8.3f}  {word[better.get(row.scheme)]}"
    ).rstrip()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("specs", nargs="*", help="schemes to measure instead of the list")
    parser.add_argument("--model", default="emoji64", help="built-in name or folder")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--calibration", type=int, default=4, help="prompts")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--json", action="store_true", help="one JSON object a scheme")
    a = parser.parse_args()
    lines = Path(__file__).with_name("prompts40.txt").read_text(encoding="utf-8").splitlines()
    words = [text for text in lines if text and not text.startswith("#")][: a.prompts]
    bench = Bench(a.model, words, a.calibration, a.steps)
    if not a.json:
        print(f"{'scheme':26} {'ratio':>6} {'PSNR':>6} {'worst':>6} {'SSIM':>7} {'loss dB':>8}")
    rows: list[Row] = []
    for text in a.specs or SCHEMES:
        rows.append(bench.measure(text, SCHEMES.get(text, "")))
        better = verdicts(rows)
        if a.json:
            print(json.dumps(asdict(rows[-1]) | {"better": better.get(text)}), flush=True)
        else:
            print(line(rows[-1], better), flush=True)


if __name__ == "__main__":
    main()
