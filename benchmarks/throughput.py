"""Pictures per second in one process: `dit`'s loop against the diffusers pipeline, same batch, CPU.

    python benchmarks/throughput.py [--prompts 64] [--batch-size 8] [--steps 20] [--rounds 3]
        [--model emoji64]

Loading is not counted. Both use the built-in model, the same prompts, steps and guidance; rounds
are interleaved and the median ratio is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

SCALE = 4.0


def ours(folder: str, steps: int) -> Callable[[list[str], list[int]], None]:
    """A function that makes a batch with `dit` on ONNX Runtime."""
    from dit_tools import sampling
    from dit_tools.core.plan import Plan
    from dit_tools.models.families._base import Prompts
    from dit_tools.models.load import load

    model = load(folder, backend="onnx")
    plan = Plan.parse(steps, {
        "schedule": "native", "solver": model.defaults.solver, "noise": "philox",
        "guidance": f"cfg:scale={SCALE}", "cache": "none",
    })  # fmt: skip
    size = model.defaults.size

    def make(prompts: list[str], seeds: list[int]) -> None:
        conditions = model.encode(
            Prompts(tuple(prompts), ("",) * len(prompts), size, size, ("cond", "uncond"))
        )
        x, noise = sampling.start(model, plan, model.family.latent_shape(size, size), seeds)
        for step in sampling.sample(model, conditions, x, plan, noise):
            x = step.x
        model.codec.decode(x)

    return make


def theirs(folder: Path, steps: int) -> Callable[[list[str], list[int]], None]:
    """A function that makes a batch with the diffusers pipeline."""
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder)
    tokens = json.loads((folder / "dit.json").read_text(encoding="utf-8"))["max_tokens"]
    pipe.set_progress_bar_config(disable=True)

    def make(prompts: list[str], seeds: list[int]) -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        pipe(
            prompts, num_inference_steps=steps, guidance_scale=SCALE, height=64, width=64,
            generator=generators, use_resolution_binning=False, max_sequence_length=tokens,
        )  # fmt: skip

    return make


def main() -> None:
    """Print pictures per second of both and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="emoji64", help="a folder with graphs, or a built-in")
    a = parser.parse_args()
    from dit_tools.models.resolve import resolve

    folder = resolve(a.model).path
    lines = Path(__file__).with_name("prompts40.txt").read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if line and not line.startswith("#")]
    prompts = [words[i % len(words)] for i in range(a.prompts)]
    makers = {"dit": ours(a.model, a.steps), "diffusers": theirs(folder, a.steps)}
    rates: dict[str, list[float]] = {name: [] for name in makers}
    for round_ in range(a.rounds + 1):
        for name, make in makers.items():
            start = time.perf_counter()
            for i in range(0, a.prompts, a.batch_size):
                chunk = prompts[i : i + a.batch_size]
                make(chunk, list(range(i, i + len(chunk))))
            if round_:  # the first round warms up
                rates[name].append(a.prompts / (time.perf_counter() - start))
    for name, values in rates.items():
        print(f"{name:10} {statistics.median(values):8.2f} pictures/s")
    ratio = statistics.median(x / y for x, y in zip(rates["dit"], rates["diffusers"], strict=True))
    print(f"ratio      {ratio:8.2f}")


if __name__ == "__main__":
    main()
