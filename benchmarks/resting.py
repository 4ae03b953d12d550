"""What it is worth that graphs' threads rest between calls (``dit_tools/models/onnx_session.py``).

    python benchmarks/resting.py [--model emoji] [--second-model emoji-small] [--steps 20]
        [--batches 1 8] [--rounds 3]

Milliseconds of sampling on ONNX Runtime, plain and with half of the steps by the second model
(``t-stitch:share=0.5``), as graphs are opened here and as they would be by default, spinning on.
Each way has a process of its own, as it would for a user; processes alternate, and the median over
rounds of their medians is printed. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WAYS = ("resting", "spinning")
RUNS = ("", "combine=t-stitch:share=0.5")
TIMES = 9  # samplings of a process and run; the first one warms up


def spinning(path: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Any:
    """A session as ``graphs.open_session`` makes it, but for what its threads do between calls."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=list(providers))


def sample(a: argparse.Namespace, way: str, times: int = TIMES) -> dict[str, float]:
    """Run and batch size -> milliseconds, in this process."""
    from benchmarks.acceleration import _asked, parse_run, plan, prompts_of, sample_once
    from dit_tools.models import onnx_session
    from dit_tools.models.loading.load import load

    if way == "spinning":
        onnx_session.open_session = spinning
    model = load(a.model, backend="onnx")
    model.second = load(a.second_model, backend="onnx")
    found = {}
    for size in a.batches:
        for run in RUNS:
            chosen = plan(model, a.steps, parse_run(run) if run else {})
            seconds = [sample_once(model, chosen, *_asked(model, prompts_of(size))).seconds for _ in range(times)]
            name = f"{run or 'plain'}, batch of {size}"
            found[name] = 1e3 * statistics.median(seconds[1:] or seconds)
    return found


def main() -> None:
    """Alternate processes, print a line per run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--second-model", default="emoji-small")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="in this process, as JSON")
    a = parser.parse_args()
    if a.way:
        print(json.dumps(sample(a, a.way)))
        return
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(a.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
            rounds[way].append(json.loads(subprocess.check_output(command, text=True)))
    print(f"{'run':46} {'resting':>8} {'spinning':>9} {'ratio':>6}")
    for name in rounds["resting"][0]:
        rest, spin = (statistics.median(one[name] for one in rounds[way]) for way in WAYS)
        print(f"{name:46} {rest:5.0f} ms {spin:6.0f} ms {spin / rest:5.2f}x")


if __name__ == "__main__":
    main()
