"""The learned table of ``--cache harmonica`` against random tables of as many modules.

    python benchmarks/harmonica.py [--model emoji] [--steps 20] [--rounds 40] [--beta 2]
        [--prompts 8] [--random 6] [--json]

The table is trained on the model's own prompts and judged on others from other noise. Error is
that of the final latents to the full run's, squared, relative to their size. "even" is the
hand-made table that computes everything at every second call; a random table computes as many
modules as the learned one, anywhere but in the first and the last call. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import acceleration


@dataclass(frozen=True)
class Row:
    """A table: share of modules that it computes, and the error of the final latents."""

    table: str
    computed: float
    error: float


def measure(model: Any, steps: int, rounds: int, beta: float, prompts: int, random: int) -> Iterator[Row]:
    """Train a table; a row for it, for the hand-made one and for every random one."""
    from dit_tools.tasks.calibrate.calibration_run import CalibrationRun
    from dit_tools.tasks.calibrate.run import calibrate
    from dit_tools.tasks.quantize.denoising_error import default_prompts

    chosen = acceleration.plan(model, steps, {"cache": f"harmonica:beta={beta}"})
    size = model.defaults.size
    learning = CalibrationRun(model, chosen, default_prompts(model, 8), (size, size), rounds, 5_000_000)
    known = calibrate(learning)
    judging = learning.with_prompts(acceleration.prompts_of(prompts), 0)
    truth, _ = judging.plain()

    def row(name: str, table: Any, **changes: Any) -> Row:
        latents, run = judging.cached(table, **changes)
        count = run.count
        every = count["modules computed"] + count["modules skipped"]
        error = float(((latents - truth) ** 2).mean() / (truth**2).mean())
        return Row(name, count["modules computed"] / every, error)

    yield row("even", None, calibration="even")
    yield row("learned", known)
    rho = known.arrays["rho"]
    for seed in range(random):
        arrays = {**known.arrays, "rho": shuffled(rho, seed)}
        yield row(f"random {seed}", replace(known, arrays=arrays))


def shuffled(rho: np.ndarray, seed: int) -> np.ndarray:
    """The numbers (T, M) of all calls but the first and the last one, in another order."""
    made = rho.copy()
    inner = made[1:-1].reshape(-1)
    made[1:-1] = np.random.default_rng(seed).permutation(inner).reshape(made[1:-1].shape)
    return made


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji", help="built-in name, folder or hub id")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=40, help="of training, two prompts each")
    parser.add_argument("--beta", type=float, default=2.0)
    parser.add_argument("--prompts", type=int, default=8, help="that image-text model")
    parser.add_argument("--random", type=int, default=6, help="tables")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    a = parser.parse_args()
    from dit_tools.models.loading.load import load

    model = load(a.model, backend="torch")
    for row in measure(model, a.steps, a.rounds, a.beta, a.prompts, a.random):
        line = f"{row.table:10} {row.computed:6.1%} {row.error:.5f}"
        print(json.dumps(asdict(row)) if a.json else line, flush=True)


if __name__ == "__main__":
    main()
