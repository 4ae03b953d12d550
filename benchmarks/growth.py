"""Cost as work grows: seconds against tokens and against images, plain and cached.

    python benchmarks/growth.py [--tokens 256 1024 4096 16384] [--pictures 1 4 16 64]
        [--caches none taylorseer:interval=3,warmup=1 output:interval=3,warmup=1] [--steps 6]
        [--rounds 3] [--budget 30] [--layers 2] [--width 256] [--json] [--plot docs/growth.svg]

The network is a PixArt transformer of random weights, so that any number of tokens can be asked
for: values do not matter to its cost. Tokens grow with one image, images grow at the smallest
number of tokens. One step of the plain run warms up at every size. Then in every round each cache
samples once, one after the other in this process; a size that has taken ``--budget`` seconds gets
no further round. Seconds are medians of sampling, ``slope`` is the exponent of their growth from
the size before: 1 is linear, 2 quadratic.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PATCH = 2
TEXT = 16  # tokens of text
TEXT_WIDTH = 64


@dataclass(frozen=True)
class Row:
    """Median seconds of one cache at one size; ``growth`` says which of the two was grown."""

    growth: str
    tokens: int
    pictures: int
    cache: str
    seconds: float
    computed: float  # share of blocks or calls
    slope: float | None = None


def network(layers: int, width: int, tokens: int) -> Any:
    """A flow-matching PixArt model of random weights whose default image has ``tokens``."""
    import torch
    from diffusers import PixArtTransformer2DModel

    from dit_tools.models.backends.torch_network import TorchNetwork
    from dit_tools.models.families.pixart import PixArt
    from dit_tools.models.model import Defaults, Model

    side = side_of(tokens)
    config = {
        "num_attention_heads": max(width // 64, 1),
        "attention_head_dim": min(width, 64),
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": layers,
        "cross_attention_dim": width,
        "sample_size": side,
        "patch_size": PATCH,
        "caption_channels": TEXT_WIDTH,
        "use_additional_conditions": False,
    }
    torch.manual_seed(0)
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    family = PixArt(config, {"block_out_channels": [8], "scaling_factor": 1.0}, scheduler)
    return Model(
        "random",
        "0",
        family,
        TorchNetwork(PixArtTransformer2DModel(**config).eval(), family),
        codec=None,
        encode=None,
        to_array=torch.as_tensor,  # type: ignore[arg-type]
        defaults=Defaults(20, 1.0, side, "euler"),
        backend="torch",
        device="cpu",
        dtype="float32",
    )


def side_of(tokens: int) -> int:
    """Latents along a side of a square image. Raises ValueError when there is no such square."""
    root = math.isqrt(tokens)
    if root * root != tokens:
        raise ValueError(f"{tokens} tokens: not a square")
    return root * PATCH


def sampled(model: Any, cache: str, tokens: int, pictures: int, steps: int) -> tuple[float, float]:
    """Seconds of one run and the share of blocks that it computed."""
    import torch

    from dit_tools.core.plan import Plan
    from dit_tools.sampling.sampler import NoiseSource, Sampler

    plan = Plan.parse(
        steps, {"schedule": "uniform", "solver": "euler", "guidance": "none", "noise": "philox", "cache": cache}
    )
    side = side_of(tokens)
    noise = NoiseSource(plan.noise.stream((4, side, side), list(range(pictures))), model.to_array)
    x, sampler = noise.fresh(), Sampler(model, plan)
    text = torch.randn(pictures, TEXT, TEXT_WIDTH, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(pictures, TEXT, dtype=torch.int64)
    conditions = {"cond": {"encoder_hidden_states": text, "encoder_attention_mask": mask}}
    began = time.perf_counter()
    for step in sampler.sample(x, conditions, noise):
        x = step.x
    float(x.sum())  # waits for the device
    seconds = time.perf_counter() - began
    count = sampler.state.count
    computed, skipped = count["blocks computed"], count["blocks skipped"]
    return seconds, computed / (computed + skipped) if computed + skipped else 1.0


def measure(
    tokens: Sequence[int],
    pictures: Sequence[int],
    caches: Sequence[str],
    steps: int,
    rounds: int,
    layers: int,
    width: int,
    budget: float = math.inf,
) -> list[Row]:
    """A row per cache and size, first for growing tokens, then for growing images.

    ``budget``: seconds after which a size gets no further round; it always has one.
    """
    sizes = [("tokens", count, 1) for count in tokens]
    sizes += [("pictures", min(tokens), count) for count in pictures]
    rows: list[Row] = []
    for growth, many, batch in sizes:
        model = network(layers, width, many)
        times: dict[str, list[float]] = {cache: [] for cache in caches}
        shares: dict[str, float] = {}
        sampled(model, "none", many, batch, 1)
        began, done = time.perf_counter(), 0
        while done < rounds and (not done or time.perf_counter() - began < budget):
            for cache in caches:
                seconds, shares[cache] = sampled(model, cache, many, batch, steps)
                times[cache].append(seconds)
            done += 1
        print(f"{growth}: {many} tokens, {batch} images, {done} rounds", file=sys.stderr)
        for cache in caches:
            made = Row(growth, many, batch, cache, statistics.median(times[cache]), shares[cache])
            rows.append(with_slope(made, rows))
    return rows


def with_slope(row: Row, before: Sequence[Row]) -> Row:
    """The row with the exponent of its growth from the size before; none for the first size."""
    same = [r for r in before if (r.growth, r.cache) == (row.growth, row.cache)]
    if not same:
        return row
    grown = row.tokens * row.pictures / (same[-1].tokens * same[-1].pictures)
    slope = math.log(row.seconds / same[-1].seconds) / math.log(grown) if grown != 1 else None
    return Row(**{**asdict(row), "slope": slope})


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text under a heading."""
    width = max(len(r.cache) for r in rows)
    head = f"{'tokens':>7} {'pictures':>8}  {'cache':{width}} {'seconds':>9} {'computed':>9} slope"
    lines = [head]
    for r in rows:
        slope = "" if r.slope is None else f"{r.slope:.2f}"
        lines.append(
            f"{r.tokens:7d} {r.pictures:8d}  {r.cache:{width}} {r.seconds:9.3f} {r.computed:9.0%} {slope}".rstrip()
        )
    return "\n".join(lines)


def plot(rows: Sequence[Row]) -> str:
    """Seconds against tokens times images, a line for every cache and growth, as SVG."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("figures", Path(__file__).with_name("figures.py"))
    assert spec is not None and spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    sys.modules["figures"] = figures  # its dataclasses look themselves up there
    spec.loader.exec_module(figures)
    series: dict[str, list[tuple[float, float]]] = {}
    for r in rows:
        name = f"{r.cache}, more {r.growth}"
        series.setdefault(name, []).append((r.tokens * r.pictures, r.seconds))
    return figures.lines("Seconds as work grows", series, ("tokens in all", "seconds"))


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096, 16384])
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4, 16, 64])
    caches = ["none", "taylorseer:interval=3,warmup=1", "output:interval=3,warmup=1"]
    parser.add_argument("--caches", nargs="+", default=caches, metavar="SPEC")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3, help="at most")
    parser.add_argument("--budget", type=float, default=30.0, metavar="SECONDS", help="of a size")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    parser.add_argument("--plot", metavar="FILE", help="also an SVG")
    a = parser.parse_args()
    rows = measure(a.tokens, a.pictures, a.caches, a.steps, a.rounds, a.layers, a.width, a.budget)
    print("\n".join(json.dumps(asdict(r)) for r in rows) if a.json else table(rows))
    if a.plot:
        Path(a.plot).write_text(plot(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
