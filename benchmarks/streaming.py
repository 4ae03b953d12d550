"""Frames a second of ``dit generate --stream`` against one frame after the other.

    python benchmarks/streaming.py [--model emoji] [--backend onnx] [--steps 4] [--frames 64]
        [--guidance cfg residual-cfg residual-cfg:mode=self none] [--rounds 3]

The frames are noise around one image of noise: nothing is alike enough to be skipped, and both
ways see the same. Every round runs both, one after the other in this process; the ratio is the
median over rounds after one to warm up. ``rows`` are evaluations of the network per frame.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

from dit_tools.core.size import Size


def frames_of(model: Any, count: int) -> list[Any]:
    """Latents (1, C, h, w) of unit size."""
    import numpy as np

    size = model.defaults.size
    random = np.random.default_rng(0)
    shape = (1, *model.family.latent_shape(Size.square(size)))
    base = random.standard_normal(shape)
    made = [0.8 * base + 0.6 * random.standard_normal(shape) for _ in range(count)]
    return [model.to_array(x.astype("float32")) for x in made]


def run(model: Any, guidance: str, frames: Sequence[Any], steps: int, batched: bool) -> Any:
    """Seconds, network calls, rows computed and the latents of one way."""
    from dit_tools.core.arrays import to_numpy
    from dit_tools.core.plan import Plan
    from dit_tools.models.family import ConditionRequest
    from dit_tools.tasks.stream.batch import StreamBatch

    size = model.defaults.size
    specs = {
        "schedule": model.defaults.schedule,
        "solver": "euler",
        "guidance": guidance,
        "noise": "philox",
        "cache": "none",
    }
    plan = Plan.parse(steps, specs)
    branches = tuple(branch.name for branch in plan.guidance.branches)
    conditions = model.encode(ConditionRequest(("cat",), ("",), Size.square(size), branches))
    times = plan.times(model, frames[0].shape)
    noise = frames[0] * 0 + model.to_array(plan.noise.draw(frames[0].shape[1:], [0]))
    batch = StreamBatch(model, conditions, plan.guidance, times, noise)
    began, made = time.perf_counter(), []
    for frame in frames:
        out = batch.push(frame)
        made += [] if out is None else [out]
        made += [] if batched else list(batch.flush())
    made += list(batch.flush())
    ends = [to_numpy(x) for x in made]  # waits for the device
    return time.perf_counter() - began, batch.calls, batch.rows, ends


def main() -> None:
    """Load the model, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--backend", default="onnx", choices=("torch", "onnx"))
    parser.add_argument("--steps", type=int, default=4, help="levels of the stream batch")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds")
    parser.add_argument(
        "--guidance", nargs="+", default=["cfg:scale=2", "residual-cfg", "residual-cfg:mode=self", "none"]
    )
    a = parser.parse_args()
    from dit_tools.models.loading.load import load

    model = load(a.model, backend=a.backend)
    frames = frames_of(model, a.frames)
    print("guidance                  frames/s  one by one  faster  rows/frame  difference")
    for guidance in a.guidance:
        pairs = [[run(model, guidance, frames, a.steps, way) for way in (True, False)] for _ in range(a.rounds + 1)][1:]
        (seconds, _, rows, ends), (_, _, _, others) = pairs[0]
        seconds, alone = (statistics.median(p[i][0] for p in pairs) for i in (0, 1))
        ratio = statistics.median(two[0] / one[0] for one, two in pairs)
        apart = max(float(abs(x - y).max()) for x, y in zip(ends, others, strict=True))
        print(
            f"{guidance:24}  {a.frames / seconds:8.1f}  {a.frames / alone:10.1f}  {ratio:5.2f}x"
            f"  {rows / a.frames:10.2f}  {apart:.1e}"
        )


if __name__ == "__main__":
    main()
