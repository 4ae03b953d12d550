"""Methods that change images rather than save calls: what they give at equal cost.

    python benchmarks/methods.py solvers [--calls 8 12 20 50] [--scale 8] [--run SPEC ...]
    python benchmarks/methods.py guidance [--steps 20] [--prompt-file FILE]
    python benchmarks/methods.py combine [--steps 100] [--prompts 32]
    python benchmarks/methods.py diversity --model STUDENT --second-model BASE [--steps 4]
    python benchmarks/methods.py highres [--times 2]
        [--model emoji] [--backend torch|onnx] [--prompts 40] [--scale S] [--json]

Runs are written as in ``acceleration.py``. Prompt i is drawn from seed i, eight at a time; all runs
draw eight images before any draws the next eight. "slower" is the median over these of a run's
seconds by those of the first run: text, sampling and decoding, in processor time on a CPU, so that
other work hardly matters. "evaluations" are rows through the network for one image. A difference
is given with twice its standard error over images: "better" and "worse" are those that are
larger, "same" is the rest.

solvers: PSNR, mean over images, to 200 steps of the model's own solver, at equal network calls.
A solver of two calls a step takes as many steps as these allow.

guidance: "found" is the share of images whose own prompt the image-text model of ``dit eval`` puts first,
"cosine" its agreement, "saturation" that of the drawn pixels. "gain" is the cosine's difference to
the plain run of the nearest cost in seconds; plain runs of other steps are there for it. Of ten or
more prompts with a colour, "coloured" is the share of images that have it, which no judge sees.

combine: the first half of the prompts, each with one of the second half. "both": these two are the
nearest of all prompts; "either": the nearest is one of them, "first" says how often the first;
"lesser": cosine with the worse one, and its gain over the prompt "A and B".

diversity: eight seeds of each prompt; "variety" is the mean of 1 - cosine between the image-text model's
features of two images of a prompt.

highres: images of a larger size, shrunk to the model's own, against the plain ones: "kept" in dB
and SSIM. "detail" is what shrinking loses, RMS in levels. "enlarged" is the plain image, bicubic.

Left out: --noise oms. It changes schedules that end before pure noise, which a flow does not have.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dit_tools.core.size import Size

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.acceleration import SHEET, parse_run, plan, prompts_of, psnr, sample_once, similarity
from benchmarks.methods_scores import (
    Row,
    coloured,
    cosines,
    gain,
    pairs,
    recognised,
    saturation,
    scaled,
    table,
    variety,
)

AT_ONCE = 8
CONVERGED = 200
PLAIN = "plain"
STOCHASTIC = "solver=ddim:eta=1"  # the steps that superdiff takes
RUNS = {
    "solvers": (
        "solver=euler",
        "solver=heun",
        "solver=dpmpp-2m",
        "solver=unipc",
        "solver=ghvb",
        "solver=ghvb:order=3,beta=0.7",
        "solver=ghvb:order=2,beta=1",
        "solver=bdia",
        "solver=bdia:gamma=1",
    ),
    "guidance": (
        "steps=10",
        "steps=40",
        "guidance=none",
        "guidance=apg",
        "guidance=cfg-zero-star",
        "guidance=cfg-zero-star:zero_steps=0",
        "guidance=feedback",
        "guidance=classifier",
        "guidance=soft-pag",
    ),
    "combine": (
        f"combine=superdiff:mode=or,temperature=0+{STOCHASTIC}",
        f"combine=superdiff+{STOCHASTIC}",
        f"combine=superdiff:mode=or+{STOCHASTIC}",
    ),
    "diversity": ("combine=diversity", "combine=diversity:substeps=4", "combine=diversity:base_steps=1000"),
    "highres": ("highres=none", "highres=ntk", "highres=yarn", "highres=time-aware", "highres=diffusehigh"),
}
STEPS = {"combine": 100, "diversity": 4}
Way = Callable[[slice], Any]
"""Pixels (B, C, H, W) of a part of the images."""


class Counted:
    """A network that counts the rows that go through it."""

    def __init__(self, network: Any):
        self._network, self.rows = network, 0

    def __call__(self, **inputs: Any) -> Any:
        """What the network says."""
        made = self._network(**inputs)
        self.rows += len(made)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


@dataclass
class Made:
    """Images of a run in parts, seconds of each part, and rows through the network."""

    parts: list[Any] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rows: int = 0

    @property
    def pixels(self) -> Any:
        """(B, C, H, W), in [0, 1]."""
        import numpy as np

        return np.concatenate(self.parts).clip(0, 1)

    def cost(self, plain: Made) -> Row:
        """Rows for one image, and seconds by those of the plain run."""
        ratios = [a / b for a, b in zip(self.seconds, plain.seconds, strict=True)]
        count = sum(len(part) for part in self.parts)
        return {"evaluations": self.rows / count, "slower": statistics.median(ratios)}


def interleaved(model: Any, ways: Mapping[Any, Way], count: int) -> dict[Any, Made]:
    """``Made`` of every way; none draws its next part before all have drawn theirs."""
    clock = time.process_time if model.device == "cpu" else time.perf_counter
    networks = [one.network for one in (model, model.second) if one is not None]
    made = {name: Made() for name in ways}
    for i in range(0, count, AT_ONCE):
        for name, way in ways.items():
            before, began = sum(n.rows for n in networks), clock()
            made[name].parts.append(way(slice(i, min(i + AT_ONCE, count))))
            made[name].seconds.append(clock() - began)
            made[name].rows += sum(n.rows for n in networks) - before
        print(f"\r{min(i + AT_ONCE, count)}/{count}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return made


def way(model: Any, chosen: Any, prompts: Sequence[str], seeds: Sequence[int], seconds: Sequence[str] = ()) -> Way:
    """The way of a plan; ``seconds`` are second prompts, for plans that combine."""
    from dit_tools.models.family import ConditionRequest
    from dit_tools.sampling.sampler import Second
    from dit_tools.tasks.generate.scorer import LatentScorer

    size = model.defaults.size

    def asked(words: Sequence[str]) -> ConditionRequest:
        return ConditionRequest(tuple(words), ("",) * len(words), Size.square(size))

    def draw(part: slice) -> Any:
        words, other = asked(prompts[part]), model.second
        conditions = model.encode(words)
        if seconds and chosen.combine.takes:
            conditions["second"] = model.encode(asked(seconds[part]))["cond"]
        scorer = LatentScorer(model, words.texts) if chosen.guidance.sees else None
        second = Second(other, other.encode(words)) if other else None
        return sample_once(model, chosen, conditions, list(seeds[part]), second, scorer).pixels

    return draw


def solvers(model: Any, a: argparse.Namespace, prompts: Sequence[str]) -> list[Row]:
    """PSNR to the converged run by solver and number of network calls."""
    seeds, ways = range(len(prompts)), {}
    for run in a.run:
        for calls in a.calls:
            steps = steps_for(plan(model, calls, parse_run(run)).solver, calls)
            chosen = plan(model, steps, parse_run(run))
            ways[run, calls] = way(model, chosen, prompts, seeds)
    ways[PLAIN] = way(model, plan(model, CONVERGED, {}), prompts, seeds)
    made = interleaved(model, ways, len(prompts))
    near = {key: statistics.fmean(psnr(one.pixels, made[PLAIN].pixels)) for key, one in made.items() if key != PLAIN}
    return [{"run": run} | {f"{n} calls": near[run, n] for n in a.calls} for run in a.run]


def steps_for(solver: Any, calls: int) -> int:
    """The most steps that take no more than ``calls`` guided predictions, at least 1."""
    return max((n for n in range(1, calls + 1) if solver.calls(n) <= calls), default=1)


def guidance(model: Any, a: argparse.Namespace, prompts: Sequence[str]) -> list[Row]:
    """What the image-text model says of every guidance, against plain runs of as many seconds."""
    plans = {run: plan(model, a.steps, parse_run(run)) for run in a.run}
    plans = {PLAIN: plan(model, a.steps, {}), **plans}
    ways = {run: way(model, p, prompts, range(len(prompts))) for run, p in plans.items()}
    made = interleaved(model, ways, len(prompts))
    near = {run: cosines(one.pixels, prompts) for run, one in made.items()}
    costs = {run: one.cost(made[PLAIN]) for run, one in made.items()}
    plain = {run: costs[run]["slower"] for run in plans if run.startswith((PLAIN, "steps="))}
    rows = []
    for run, one in made.items():
        row = {
            "run": run,
            **costs[run],
            "found": recognised(one.pixels, prompts),
            "cosine": statistics.fmean(near[run]),
            "saturation": saturation(one.pixels),
            **coloured(one.pixels, prompts),
            "against": "",
            "gain": "",
            "verdict": "",
        }
        if run not in plain:
            rival = nearest(plain, row["slower"])
            row |= {"against": rival, **gain(near[run], near[rival])}
            row["verdict"] += ", by its own judge" if plans[run].guidance.sees else ""
        rows.append(row)
    return rows


def nearest(costs: Mapping[str, float], cost: float) -> str:
    """The run whose cost is nearest as a ratio."""
    return min(costs, key=lambda run: abs(math.log(costs[run] / cost)))


def combine(model: Any, a: argparse.Namespace, prompts: Sequence[str]) -> list[Row]:
    """Whether both of two prompts, or one of them, are found in an image."""
    count = len(prompts) // 2
    first, second = prompts[:count], prompts[count : 2 * count]
    joined = [f"{one} and {two}" for one, two in zip(first, second, strict=True)]
    ways = {PLAIN: way(model, plan(model, a.steps, parse_run(STOCHASTIC)), joined, range(count))}
    for run in a.run:
        chosen = plan(model, a.steps, parse_run(run))
        ways[run] = way(model, chosen, first, range(count), second)
    made = interleaved(model, ways, count)
    lesser = {
        run: [min(pair) for pair in zip(cosines(one.pixels, first), cosines(one.pixels, second), strict=True)]
        for run, one in made.items()
    }
    return [
        {
            "run": run,
            **one.cost(made[PLAIN]),
            **pairs(one.pixels, first, second),
            "lesser": statistics.fmean(lesser[run]),
            **({"gain": "", "verdict": ""} if run == PLAIN else gain(lesser[run], lesser[PLAIN])),
        }
        for run, one in made.items()
    ]


def diversity(model: Any, a: argparse.Namespace, prompts: Sequence[str]) -> list[Row]:
    """How different the images of one prompt are, and whether they are found."""
    words = [prompt for prompt in prompts for _ in range(AT_ONCE)]
    seeds = [seed for _ in prompts for seed in range(AT_ONCE)]
    plans = {run: plan(model, a.steps, parse_run(run)) for run in a.run}
    plans = {PLAIN: plan(model, a.steps, {}), **plans}
    ways = {run: way(model, p, words, seeds) for run, p in plans.items()}
    made = interleaved(model, ways, len(words))
    return [
        {"run": run, **one.cost(made[PLAIN]), "variety": variety(one.parts), "found": recognised(one.pixels, words)}
        for run, one in made.items()
    ]


def highres(model: Any, a: argparse.Namespace, prompts: Sequence[str]) -> list[Row]:
    """What larger images keep of the plain ones, and what they add."""
    own = model.defaults.size
    ways = {PLAIN: _sized(model, a.steps, own, "none", prompts)}
    for run in a.run:
        ways[run] = _sized(model, a.steps, a.times * own, parse_run(run)["highres"], prompts)
    made = interleaved(model, ways, len(prompts))
    plain = made[PLAIN].pixels
    images = {"enlarged": scaled(plain, a.times * own)}
    images |= {run: one.pixels for run, one in made.items() if run != PLAIN}
    rows = []
    for run, pixels in images.items():
        small = scaled(pixels, own)
        detail = 255 * float(((pixels - scaled(small, a.times * own)) ** 2).mean()) ** 0.5
        rows.append(
            {
                "run": run,
                **made.get(run, made[PLAIN]).cost(made[PLAIN]),
                "found": recognised(pixels, prompts),
                "kept": statistics.fmean(psnr(small, plain)),
                "SSIM": similarity(small, plain),
                "detail": detail,
            }
        )
    return rows


def _sized(model: Any, steps: int, side: int, method: str, prompts: Sequence[str]) -> Way:
    from dit_tools.jobs.expand import Job
    from dit_tools.jobs.settings import Settings
    from dit_tools.tasks.generate.sample_batch import sample_batch

    settings = Settings(width=side, height=side, steps=steps, highres=method)
    jobs = [Job(i, prompt, i, settings) for i, prompt in enumerate(prompts)]

    def drawn(part: slice) -> Any:
        import numpy as np

        return np.stack([one.pixels for one in sample_batch(model, jobs[part])])

    return drawn


def main() -> None:
    """Load the model, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", choices=tuple(RUNS))
    parser.add_argument("--model", default="emoji", help="built-in name, folder or hub id")
    parser.add_argument("--second-model", metavar="BASE", help="for diversity")
    parser.add_argument("--backend", choices=("torch", "onnx"), help="default: what the category needs")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--calls", type=int, nargs="+", default=[8, 12, 20, 50])
    parser.add_argument("--scale", type=float, help="of guidance, in place of the model's own")
    parser.add_argument("--times", type=int, default=2, help="how much larger, for highres")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--prompt-file", type=Path, default=SHEET, metavar="FILE")
    parser.add_argument("--run", nargs="+", metavar="SPEC")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    a = parser.parse_args()
    from dit_tools.models.loading.load import load

    if a.room == "diversity" and not a.second_model:
        parser.error("diversity: give --second-model BASE")
    backend = a.backend or ("torch" if a.room in ("guidance", "highres") else "onnx")
    model = prepared(load(a.model, backend=backend), a.scale)
    if a.second_model:
        model.second = prepared(load(a.second_model, backend=backend), None)
    a.steps = a.steps or STEPS.get(a.room, model.defaults.steps)
    a.run = a.run or list(RUNS[a.room])
    rows = globals()[a.room](model, a, prompts_of(a.prompts, a.prompt_file))
    print("\n".join(map(json.dumps, rows)) if a.json else table(rows))


def prepared(model: Any, scale: float | None) -> Any:
    """The model with a network that counts, and another scale of guidance where one is given."""
    model.network = Counted(model.network)
    if scale is not None:
        model.defaults = replace(model.defaults, cfg=scale)
    return model


if __name__ == "__main__":
    main()
