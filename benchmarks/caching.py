"""What each cache saves and what it costs: blocks, seconds and PSNR against the plain run.

    python benchmarks/caching.py [--model emoji] [--steps 50] [--json] [--cache SPEC ...]

The model is loaded once, on PyTorch. In every round the plain run and each cache sample the same
prompts from the same seeds, one after the other in this process, so that a busy machine slows all
of them; the ratio is the median over rounds of plain seconds by the cache's seconds, sampling only.
The first round warms up and is not counted. PSNR compares decoded images with the plain run's,
channel values in [0, 1], one number per image, then mean and worst.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dit_tools.core.size import Size

CACHES = (
    "taylorseer:order=0,interval=3",
    "taylorseer:order=1,interval=3",
    "taylorseer:order=2,interval=3",
    "taylorseer:order=1,interval=5",
    "cg-taylor:threshold=0.008",
    "cg-taylor:threshold=0.03",
    "first-block:threshold=0.05",
    "first-block:threshold=0.15",
)
PROMPTS = ("red heart", "cat face", "pizza", "red apple")


@dataclass(frozen=True)
class Sampled:
    """One run: pixels (B, C, H, W) in [0, 1], seconds of sampling, block counters."""

    pixels: Any
    seconds: float
    computed: int
    skipped: int


@dataclass(frozen=True)
class Row:
    """What is printed about one cache. ``psnr`` in dB is infinite for equal images."""

    cache: str
    computed: int
    skipped: int
    evaluations: float  # plain block evaluations by computed ones
    speedup: float
    psnr: float
    psnr_worst: float


def psnr(pixels: Any, reference: Any) -> list[float]:
    """Peak signal-to-noise ratio in dB of each image of (B, C, H, W) arrays in [0, 1]."""
    errors = ((pixels - reference) ** 2).reshape(len(pixels), -1).mean(axis=1)
    return [math.inf if error == 0 else -10 * math.log10(error) for error in errors]


def row(cache: str, plain: Sequence[Sampled], cached: Sequence[Sampled]) -> Row:
    """The figures of one cache from its counted rounds and the plain runs of the same rounds."""
    first, values = cached[0], psnr(cached[0].pixels, plain[0].pixels)
    return Row(
        cache,
        first.computed,
        first.skipped,
        (first.computed + first.skipped) / first.computed,
        statistics.median(p.seconds / c.seconds for p, c in zip(plain, cached, strict=True)),
        statistics.fmean(values),
        min(values),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text under a heading."""
    lines = [("cache", "computed", "skipped", "fewer", "faster", "PSNR", "worst")]
    for r in rows:
        lines.append(
            (
                r.cache,
                str(r.computed),
                str(r.skipped),
                f"{r.evaluations:.2f}x",
                f"{r.speedup:.2f}x",
                f"{r.psnr:.1f}",
                f"{r.psnr_worst:.1f}",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def as_json(rows: Sequence[Row]) -> str:
    """One JSON object per line; the PSNR of equal images is null."""
    return "\n".join(json.dumps({k: None if v == math.inf else v for k, v in asdict(r).items()}) for r in rows)


def sample_once(model: Any, conditions: Any, cache: str, seeds: list[int], steps: int, guidance: str) -> Sampled:
    """Sample with a cache and count. Blocks of the plain run are not hooked and count 0."""
    from dit_tools.core.arrays import to_numpy
    from dit_tools.core.plan import Plan
    from dit_tools.sampling.sampler import Sampler

    plan = Plan.parse(
        steps,
        {
            "schedule": model.defaults.schedule,
            "solver": model.defaults.solver,
            "noise": "philox",
            "guidance": guidance,
            "cache": cache,
        },
    )
    sampler = Sampler(model, plan)
    noise = sampler.noise(seeds)
    x = noise.fresh()
    began = time.perf_counter()
    for step in sampler.sample(x, conditions, noise):
        x = step.x
    to_numpy(x)  # waits for the device
    seconds = time.perf_counter() - began
    pixels, count = model.codec.decode(x), sampler.state.count
    return Sampled(pixels, seconds, count["blocks computed"], count["blocks skipped"])


def measure(
    model: Any, prompts: Sequence[str], caches: Sequence[str], steps: int, rounds: int, guidance: str
) -> list[Row]:
    """A row per cache, from interleaved rounds of which the first is thrown away."""
    from dit_tools.models.family import ConditionRequest

    size, seeds = model.defaults.size, list(range(len(prompts)))
    conditions = model.encode(ConditionRequest(tuple(prompts), ("",) * len(prompts), Size.square(size)))
    made: dict[str, list[Sampled]] = {name: [] for name in ("none", *caches)}
    for round_ in range(rounds + 1):
        for name, results in made.items():
            sampled = sample_once(model, conditions, name, seeds, steps, guidance)
            if round_:
                results.append(sampled)
    return [row(name, made["none"], made[name]) for name in caches]


def main() -> None:
    """Load the model, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji", help="built-in name, folder or hub id")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds")
    parser.add_argument("--prompts", nargs="+", default=list(PROMPTS))
    parser.add_argument("--cache", nargs="+", default=list(CACHES), metavar="SPEC")
    parser.add_argument("--guidance", help="default: the model's own")
    parser.add_argument("--json", action="store_true", help="one JSON object per cache")
    a = parser.parse_args()
    from dit_tools.models.loading.load import load

    model = load(a.model, backend="torch", device=a.device)
    guidance = a.guidance or f"cfg:scale={model.defaults.cfg}"
    rows = measure(model, a.prompts, a.cache, a.steps, a.rounds, guidance)
    print(as_json(rows) if a.json else table(rows))


if __name__ == "__main__":
    main()
