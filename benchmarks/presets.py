"""Measures what --cache slow, medium, fast and ultra stand for on a model.

    python benchmarks/presets.py [--model emoji] [--steps 10 20 50] [--prompts 8] [--all]
        [--backend auto] [--write]

For every number of steps the plain run and each candidate sample the same prompts from the same
seeds, on the backend that ``dit generate`` would take: a word must run where the model does, and
caches of whole calls, all that is tried on ONNX Runtime, run on PyTorch too. Work is counted in
block evaluations, nothing is timed, so that the table is the same on every machine up to the
rounding of its arithmetic. A word stands for the candidate that computes least among those whose
images keep the word's PSNR (``calibrating/presets.py``), for no cache where none does.
``--write`` puts the choices into dit_tools/methods/caching/presets.json, which --cache reads.
"""

from __future__ import annotations

import argparse
from typing import Any


def session(model: str, steps: int, prompts: int, backend: str) -> Any:
    """A calibration session of a model with its own way of sampling."""
    from dit_tools.tasks.calibrate import start

    values = {"model": model, "steps": steps, "backend": backend, "cache": "none"}
    return start.start_calibration(values, prompts, 1, 0, lambda done, total: None)[0]


def line(row: Any) -> str:
    """A choice in words."""
    return f"  {row.word:7} {row.spec:45} {row.computed:6.1%} of the blocks, PSNR {row.psnr:.1f} dB"


def main() -> None:
    """Measure, print, and write when asked."""
    from dit_tools.models import cache_presets
    from dit_tools.tasks.calibrate import presets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji", help="built-in name, folder or hub id")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--backend", default="auto", choices=("auto", "torch", "onnx"))
    parser.add_argument("--all", action="store_true", help="print every candidate too")
    parser.add_argument("--write", action="store_true", help="into the table that --cache reads")
    a = parser.parse_args()
    table = cache_presets.read_presets(cache_presets.SHIPPED) if cache_presets.SHIPPED.is_file() else {}
    for steps in a.steps:
        every = presets.measure_presets(session(a.model, steps, a.prompts, a.backend))
        found = presets.choose_presets(every)
        print(f"{a.model}, {steps} steps, {a.prompts} prompts")
        print("\n".join(line(row) for row in (*found, *(every if a.all else ()))), flush=True)
        table = presets.merge_tables(table, a.model, steps, found)
    if a.write:
        cache_presets.SHIPPED.write_text(presets.text_of(table), encoding="utf-8")


if __name__ == "__main__":
    main()
