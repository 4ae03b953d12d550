"""Images per second: `dit`'s loop against the diffusers pipeline, same batch, CPU.

    python benchmarks/throughput.py [--prompts 64] [--batch-size 8] [--steps 20] [--rounds 3]
        [--model NAME]

Loading is not counted. Both use the built-in model, the same prompts, steps and guidance. Each has
a process of its own, as it would for a user: in one process the waiting threads of ONNX Runtime and
of torch take each other's cores. Rounds are interleaved and the median ratio is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dit_tools.core.size import Size
from dit_tools.jobs.settings import DEFAULT_MODEL

SCALE = 4.0
SIDES = ("dit", "diffusers")


def ours(folder: str, steps: int) -> Callable[[list[str], list[int]], None]:
    """A function that makes a batch with `dit` on ONNX Runtime."""
    from dit_tools.core.plan import Plan
    from dit_tools.models.family import ConditionRequest
    from dit_tools.models.loading.load import load
    from dit_tools.sampling.sampler import Sampler

    model = load(folder, backend="onnx")
    plan = Plan.parse(
        steps,
        {
            "schedule": "native",
            "solver": model.defaults.solver,
            "noise": "philox",
            "guidance": f"cfg:scale={SCALE}",
            "cache": "none",
        },
    )
    size = model.defaults.size

    def make(prompts: list[str], seeds: list[int]) -> None:
        conditions = model.encode(
            ConditionRequest(tuple(prompts), ("",) * len(prompts), Size.square(size), ("cond", "uncond"))
        )
        sampler = Sampler(model, plan)
        noise = sampler.noise(seeds)
        x = noise.fresh()
        for step in sampler.sample(x, conditions, noise):
            x = step.x
        model.codec.decode(x)

    return make


def theirs(folder: Path, steps: int) -> Callable[[list[str], list[int]], None]:
    """A function that makes a batch with the diffusers pipeline."""
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder)
    facts = json.loads((folder / "dit.json").read_text(encoding="utf-8"))
    tokens, size = facts["max_tokens"], facts["size"]
    pipe.set_progress_bar_config(disable=True)

    def make(prompts: list[str], seeds: list[int]) -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        pipe(
            prompts,
            num_inference_steps=steps,
            guidance_scale=SCALE,
            height=size,
            width=size,
            generator=generators,
            use_resolution_binning=False,
            max_sequence_length=tokens,
        )

    return make


def serve(a: argparse.Namespace) -> None:
    """A process of one side: makes all prompts at each line of stdin, answers with the seconds."""
    from dit_tools.models.loading.resolve import resolve

    make = ours(a.model, a.steps) if a.side == "dit" else theirs(resolve(a.model).path, a.steps)
    lines = Path(__file__).with_name("prompts40.txt").read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if line and not line.startswith("#")]
    prompts = [words[i % len(words)] for i in range(a.prompts)]
    for _ in sys.stdin:
        start = time.perf_counter()
        for i in range(0, a.prompts, a.batch_size):
            chunk = prompts[i : i + a.batch_size]
            make(chunk, list(range(i, i + len(chunk))))
        print(time.perf_counter() - start, flush=True)


def ask(process: subprocess.Popen[str]) -> float:
    """Seconds of one round of a process."""
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Print images per second of both and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a folder with graphs, or a name")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.side:
        serve(a)
        return
    both = {
        side: subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], "--side", side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for side in SIDES
    }
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for round_ in range(a.rounds + 1):
        for side, process in both.items():
            seconds = ask(process)
            if round_:  # the first round warms up
                rates[side].append(a.prompts / seconds)
    for process in both.values():
        process.communicate()
    for side, values in rates.items():
        print(f"{side:10} {statistics.median(values):8.2f} images/s")
    ratio = statistics.median(x / y for x, y in zip(rates["dit"], rates["diffusers"], strict=True))
    print(f"ratio      {ratio:8.2f}")


if __name__ == "__main__":
    main()
