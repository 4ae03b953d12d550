"""What ``dit quantize`` costs and saves: schemes against rivals, graphs against PyTorch, goals.

    python benchmarks/quantization.py [--model emoji] [--prompts 4] [--only schemes|graphs]
                                      [--cells FOLDER] [--json] [SPEC ...]

The full network (PyTorch, float32, CPU) draws the prompts once; every scheme then draws them from
the same seeds. Printed for schemes: size of the transformer's weights as a share of float32, PSNR
(mean, worst) and SSIM to the full images, the rise of the denoising error on those images, the
signal-to-noise ratio of the network's output there against the full network's (SNR), and whether a
scheme beats its rivals by that ratio, which varies least with the prompts (``--quick`` measures it
without drawing images with every scheme): rounding to the nearest at its bits, the same scheme
calibrated on random times, codebooks without calibration. For graphs (``--target onnx``): the same,
with sizes of files, and how much faster than PyTorch in float32 they sample, the median over
prompts drawn by one and the other in turn. Then the goals. Calibration uses other prompts than the
comparison. Specs given as arguments are measured instead of the list.

With ``--cells`` every row is kept in a file of that folder, by what decides it (model, prompts,
steps, spec), and not measured again: a run that was stopped goes on. Schemes with four prompts and
four of calibration: about 20 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

SCHEMES = {
    "rtn": "",
    "fp8": "",
    "rtn:act=8": "",
    "vidit-q:alpha=0.3": "rtn:act=8",
    "vidit-q": "rtn:act=8",
    "ptq4dm:inputs=random": "",
    "ptq4dm": "ptq4dm:inputs=random",
    "rtn:bits=4": "",
    "rtn:bits=4,clip=mse": "",
    "q-diffusion:inputs=random,iterations=150": "rtn:bits=4",
    "q-diffusion:iterations=150": "rtn:bits=4 rtn:bits=4,clip=mse q-diffusion:inputs=random,iterations=150",
    "svd": "rtn:bits=4 rtn:bits=4,clip=mse",
    "rtn:bits=7": "",
    "rtn:bits=4,group=32,clip=mse": "",
    "fp4:iterations=0": "rtn:bits=4,group=32,clip=mse",
    "fp4:iterations=150": "fp4:iterations=0 rtn:bits=4,group=32,clip=mse",
    "rtn:bits=4,act=8": "",
    "vidit-q:bits=4": "rtn:bits=4,act=8",
    "q-diffusion:act=8,iterations=150": "rtn:bits=4,act=8",
    "rtn:bits=4,act=4,clip=mse": "",
    "quest": "rtn:bits=4,act=4,clip=mse",
    "rtn:bits=3": "",
    "vq4dit:bits=3,iterations=60": "rtn:bits=3",
    "rtn:bits=2,zero=true": "",
    "vq4dit:iterations=0": "rtn:bits=2,zero=true",
    "vq4dit:iterations=100": "vq4dit:iterations=0 rtn:bits=2,zero=true",
}
"""Scheme -> those that it must beat; empty for those that others are measured by. ``rtn:bits=7`` is
as large as ``svd``, whose branch costs three bits a weight on the built-in model."""

GRAPHS = {
    "onnx": "",
    "onnx:form=static": "",
    "onnx:form=fp16": "",
    "onnx:form=int4": "rtn:bits=4,group=64,act=8,clip=mse",
}
"""Target -> its scheme, empty for those that have their own."""


@dataclass(frozen=True)
class Row:
    """One scheme or graph. ``psnr`` in dB, ``loss``: rise of the denoising error in dB, ``faster``:
    PyTorch's seconds by the graph's, 0 where it was not measured. ``snr``: of the output, in dB.
    """

    scheme: str
    rival: str
    ratio: float
    psnr: float
    psnr_worst: float
    ssim: float
    loss: float
    faster: float = 0.0
    snr: float = math.nan


@dataclass(frozen=True)
class Goal:
    """A figure of ``scheme`` that must be at most, or at least, a bound."""

    scheme: str
    field: str
    bound: float
    least: bool

    def met(self, row: Row) -> bool:
        """Whether a row reaches it."""
        value = getattr(row, self.field)
        return value >= self.bound if self.least else value <= self.bound

    def text(self, row: Row) -> str:
        """A line for the reader."""
        word = "at least" if self.least else "at most"
        verdict = "met" if self.met(row) else "MISSED"
        value = getattr(row, self.field)
        return f"{self.scheme}: {self.field} {value:.3f}, {word} {self.bound:g} wanted: {verdict}"


GOALS = (
    Goal("onnx", "ratio", 0.27, False),
    Goal("onnx", "psnr", 35, True),
    Goal("onnx", "faster", 2, True),
    Goal("vidit-q:bits=4", "ratio", 0.16, False),
    Goal("vidit-q:bits=4", "psnr", 27, True),
    Goal("onnx:form=int4", "ratio", 0.16, False),
    Goal("onnx:form=int4", "psnr", 27, True),
    Goal("vq4dit:iterations=100", "ratio", 0.10, False),
)


def verdicts(rows: Sequence[Row]) -> dict[str, bool]:
    """Scheme -> whether its output is nearer to the full one than with each measured rival.

    Schemes none of whose rivals was measured are left out.
    """
    ratios = {row.scheme: row.snr for row in rows}
    return {
        row.scheme: not _lost_to(row, ratios) for row in rows if any(rival in ratios for rival in row.rival.split())
    }


def _lost_to(row: Row, ratios: Mapping[str, float]) -> list[str]:
    return [rival for rival in row.rival.split() if rival in ratios and row.snr <= ratios[rival]]


class Bench:
    """A model, its full images and probes, and what its layers see, each made once."""

    def __init__(self, reference: str, prompts: Sequence[str], calibration: int, steps: int | None):
        from dit_tools.models.loading.load import load
        from dit_tools.models.loading.resolve import resolve
        from dit_tools.tasks.quantize import denoising_error

        self.source = resolve(reference)
        self.model: Any = load(reference, backend="torch", device="cpu")
        self.prompts, self.steps, self.count = prompts, steps, calibration
        self.calibration = denoising_error.default_prompts(self.model, calibration, skip=5)
        self.full = list(denoising_error.sample_prompts(self.model, prompts, steps))
        self.probes = denoising_error.probes(self.model, self.full)
        self.noise = [probe.noise for probe in self.probes]
        self.exact = denoising_error.predict_noise(self.model, self.probes)
        self.base = denoising_error.mean_square(self.exact, self.noise)
        self._seen: dict[str, Mapping[str, Any]] = {}

    def _outputs(self, now: Sequence[Any]) -> tuple[float, float]:
        """Rise of the denoising error, and signal-to-noise ratio of outputs, in dB."""
        from dit_tools.tasks.quantize import denoising_error

        signal = sum(float(one.square().mean()) for one in self.exact) / len(self.exact)
        loss = denoising_error.loss_db(self.base, denoising_error.mean_square(now, self.noise))
        return loss, 10 * math.log10(signal / denoising_error.mean_square(now, self.exact))

    def seen(self, how: str, layers: Any) -> Mapping[str, Any]:
        """What layers are fed, by the kind of calibration and what of it is noted."""
        from dit_tools.tasks.quantize import activation_stats

        if not how:
            return {}
        key = f"{how}, moments: {activation_stats.moments_wanted(layers)}"
        if key not in self._seen:
            self._seen[key] = activation_stats.observe(self.model, layers, how, self.calibration, self.steps)
        return self._seen[key]

    def measure(self, text: str, rival: str = "", quick: bool = False) -> Row:
        """One scheme; ``quick``: without images."""
        from dit_tools.core import spec
        from dit_tools.tasks.quantize import bit_allocation, denoising_error, finetune, packed_folder

        wanted = packed_folder.QuantizeConfig(Path("."), spec.parse("quantization", text))
        layers = packed_folder.preflight(self.source, wanted, dry=True)
        seen = self.seen(wanted.scheme.calibration, layers)
        if wanted.scheme.tuning:
            seen = finetune.finetune_layers(self.model, layers, seen, self.calibration, self.steps, lambda event: None)
        chosen = {layer.name: (layer, layer.packer) for layer in layers.linear if layer.layout}
        with bit_allocation.run_packed(self.model, chosen, seen):
            loss, snr = self._outputs(denoising_error.predict_noise(self.model, self.probes))
            drawn = [] if quick else list(denoising_error.sample_prompts(self.model, self.prompts, self.steps))
        seen_as = (math.nan,) * 3 if quick else self._against(drawn)
        return Row(text, rival, layers.ratio, *seen_as, loss, snr=snr)

    def _against(self, drawn: Sequence[Any]) -> tuple[float, float, float]:
        """PSNR, the worst one and SSIM to the full images."""
        import numpy as np

        from dit_tools.methods.metrics.psnr import Psnr
        from dit_tools.methods.metrics.ssim import WINDOW, Ssim

        a, b = (np.stack([one.pixels for one in many]) for many in (self.full, drawn))
        psnr = Psnr().of(a, b)
        ssim = Ssim().mean(a, b) if min(a.shape[2:]) >= WINDOW else math.nan
        return psnr.mean(), psnr.min(), ssim

    def graph(self, text: str, scheme: str, rounds: int = 2) -> Row:
        """One target: made by the command's own code, then opened and timed."""
        from dit_tools.core import spec
        from dit_tools.tasks.quantize import denoising_error, packed_folder, quantize

        target = spec.parse("formats", text)
        trial = quantize.EvalConfig(0, self.count, self.steps, "cpu")
        with tempfile.TemporaryDirectory() as folder:
            wanted = packed_folder.QuantizeConfig(Path(folder) / "out", target.scheme(scheme or None))
            facts = target.make(self.source, wanted, trial, lambda event: None)
            packed = quantize.load_folder(self.source, wanted.output, "cpu")
            drawn = list(denoising_error.sample_prompts(packed, self.prompts, self.steps))
            found = denoising_error.with_conditions(self.probes, drawn)
            loss, snr = self._outputs(denoising_error.predict_noise(packed, found))
            faster = self._faster(packed, rounds)
        return Row(text, "", facts["ratio"], *self._against(drawn), loss, faster, snr)

    def _faster(self, packed: Any, rounds: int) -> float:
        """Median of seconds of the full network by those of the graph, drawing in turn."""
        from dit_tools.tasks.quantize import denoising_error

        ratios = []
        for prompt in list(self.prompts) * rounds:
            seconds = [
                next(denoising_error.sample_prompts(model, (prompt,), self.steps)).seconds
                for model in (self.model, packed)
            ]
            ratios.append(seconds[0] / seconds[1])
        return statistics.median(ratios)


class Cells:
    """Rows that were measured before, a file each. Without a folder there are none."""

    def __init__(self, folder: Path | None, key: str):
        self._folder, self._key = folder, key
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def row(self, text: str, measure: Callable[[], Row]) -> Row:
        """What ``measure`` gives, or has given."""
        if self._folder is None:
            return measure()
        digest = hashlib.sha256(f"{self._key} {text}".encode()).hexdigest()[:16]
        path = self._folder / f"{text.partition(':')[0]}-{digest}.json"
        if not path.is_file():
            part = path.with_suffix(".part")
            part.write_text(json.dumps(asdict(measure())), encoding="utf-8")
            part.rename(path)
        return Row(**json.loads(path.read_text(encoding="utf-8")))


def line(row: Row, better: Mapping[str, bool], lost: Sequence[str] = ()) -> str:
    """A row of the table; ``lost``: the rivals that were not beaten, all of them if empty."""
    won = " and ".join(row.rival.split())
    word = {True: f"better than {won}", None: "", False: f"WORSE than {' and '.join(lost) or won}"}
    faster = f"{row.faster:5.2f}x of torch float32" if row.faster else ""
    return (
        f"{row.scheme:40} {row.ratio:6.3f} {row.psnr:6.1f} {row.psnr_worst:6.1f} {row.ssim:7.4f} "
        f"{row.loss:+8.3f} "
        f"{row.snr:6.2f}  {word[better.get(row.scheme)]}{faster}"
    ).rstrip()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", help="schemes to measure instead of the list")
    parser.add_argument("--model", default="emoji", help="built-in name or folder")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--calibration", type=int, default=4, help="prompts")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--quick", action="store_true", help="schemes without their images")
    parser.add_argument("--only", choices=("schemes", "graphs"))
    parser.add_argument("--cells", type=Path, help="folder of rows that are not measured again")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    a = parser.parse_args()
    lines = Path(__file__).with_name("prompts40.txt").read_text(encoding="utf-8").splitlines()
    words = [text for text in lines if text and not text.startswith("#")][: a.prompts]
    began = time.perf_counter()
    made: list[Bench] = []

    def bench() -> Bench:  # once, and not at all where every row is there
        if not made:
            made.append(Bench(a.model, words, a.calibration, a.steps))
        return made[0]

    cells = Cells(a.cells, fingerprint(a, words))
    if not a.json:
        print(f"{'scheme':40} {'ratio':>6} {'PSNR':>6} {'worst':>6} {'SSIM':>7} {'loss dB':>8} {'SNR':>6}")
    rows: list[Row] = []

    def show(row: Row) -> None:
        rows.append(row)
        better = verdicts(rows)
        lost = _lost_to(row, {one.scheme: one.snr for one in rows})
        told = asdict(row) | {"better": better.get(row.scheme)}
        print(json.dumps(told) if a.json else line(row, better, lost), flush=True)

    graphs = {} if a.specs or a.only == "schemes" else GRAPHS  # first: speed wants a cool machine
    for text, scheme in graphs.items():
        show(cells.row(text, lambda: bench().graph(text, scheme)))  # noqa: B023
    for text in a.specs or (() if a.only == "graphs" else SCHEMES):
        measure = lambda: bench().measure(text, "", a.quick)  # noqa: E731, B023
        show(replace(cells.row(text, measure), rival=SCHEMES.get(text, "")))
    goals(rows, a.json)
    if not a.json:
        print(f"{time.perf_counter() - began:.0f} seconds")


def fingerprint(a: argparse.Namespace, words: Sequence[str]) -> str:
    """What decides a row, next to its spec: the model's files and what is drawn."""
    from dit_tools.models.loading.resolve import resolve

    source = resolve(a.model)
    files = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(source.path.rglob("*.safetensors"))
    ]
    return repr((source.name, source.revision, files, words, a.calibration, a.steps, a.quick))


def goals(rows: Sequence[Row], as_json: bool) -> None:
    """Say of every goal whether it is met, then which rivals were not beaten."""
    by_scheme = {row.scheme: row for row in rows}
    for goal in GOALS:
        row = by_scheme.get(goal.scheme)
        if row is None or math.isnan(getattr(row, goal.field)):
            continue
        made = {"goal": f"{goal.scheme} {goal.field}", "met": goal.met(row)}
        print(json.dumps(made) if as_json else goal.text(row))
    beaten = [scheme for scheme, better in verdicts(rows).items() if not better]
    if beaten and not as_json:
        print(f"not better than their rivals: {', '.join(beaten)}", file=sys.stderr)


if __name__ == "__main__":
    main()
