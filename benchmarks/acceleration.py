"""Every acceleration against the plain run and against fewer steps in the same time.

    python benchmarks/acceleration.py [--model emoji] [--backend torch|onnx] [--steps 50]
        [--prompts 32] [--timed 8] [--rounds 3] [--run SPEC ...] [--second-model SMALL]
        [--retrieval] [--prompt-file FILE] [--json] [--plot docs/acceleration.svg]

The model is loaded once. Every run first samples all prompts once: PSNR and SSIM compare its
images with the plain run's, mean over images, channel values in [0, 1]. Then it is timed on the
first ``--timed`` prompts: in every round each run comes right behind a plain run of its own, from
the same seeds in this process, so that a machine that is busy for a while slows both. Ratios are
medians over rounds of plain seconds by a run's seconds, sampling only.

"fewer steps" is a line through the runs of fewer steps: PSNR against the logarithm of the speed-up.
A method is worth it when its PSNR lies above that line at its own speed-up; else it is marked.

A run is one or several specs joined by "+": ``cache=taylorseer:interval=3+solver=unipc``;
``steps=`` sets the number of steps; ``rival=`` is another implementation (``rivals.py``). What the
backend or the model cannot carry is left out, and is said to be. Caches that need a calibration are
calibrated first, on other prompts, which is not part of their time. "front" marks runs that no
other run beats in both speed and PSNR.

``--retrieval`` adds "found": the share of pictures whose own prompt the judge of ``dit eval`` puts
nearest among all prompts of the run, with a row for the plain run; next to it the difference to that
row in points and its standard error over images. Prompts that come again are drawn from other
seeds.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dit_tools.core.size import Size

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rivals
from benchmarks.acceleration_report import Row, as_json, judged, plot, table

RUNS = (
    "cache=slow",
    "cache=medium",
    "cache=fast",
    "cache=ultra",
    "cache=taylorseer:order=0,interval=3",
    "cache=taylorseer:order=2,interval=3",
    "cache=taylorseer:interval=3,variable=time",
    "cache=cg-taylor:threshold=0.03",
    "cache=cg-taylor:threshold=0.1",
    "cache=first-block:threshold=0.05",
    "cache=first-block:threshold=0.15",
    "cache=first-block:threshold=0.05,order=1",
    "cache=first-block:threshold=0.15,order=1",
    "cache=encoder-propagation:interval=2",
    "cache=encoder-propagation:interval=3,order=1",
    "cache=encoder-propagation:keys=early",
    "cache=taylorseer:interval=3,level=module",
    "cache=output:interval=2",
    "cache=output:interval=3",
    "cache=output:interval=3,order=2",
    "cache=ertacache:threshold=0.05",
    "cache=ertacache:threshold=0.3",
    "cache=magcache:threshold=0.06",
    "cache=magcache:threshold=0.3,order=1",
    "cache=seacache:threshold=0.25",
    "cache=seacache:threshold=1",
    "cache=e-dit:threshold=0.05",
    "cache=e-dit:threshold=0.15",
    "cache=harmonica",
    "cache=harmonica:calibration=even",
    "cache=ilf",
    "cache=ilf:calibration=untrained",
    "rival=first-block:threshold=0.05",
    "rival=first-block:threshold=0.15",
    "rival=taylorseer:interval=3",
    "rival=magcache:threshold=0.06",
    "rival=dbcache:threshold=0.05",
    "rival=dbcache:threshold=0.15",
    "rival=dbcache:threshold=0.05,order=1",
    "rival=dbcache:interval=3,order=1",
    "guidance=adaptive:gamma=0.991",
    "guidance=linear-ag",
    "guidance=linear-ag:every=4",
    "guidance=residual-cfg:refresh=5",
    "cache=fast+guidance=adaptive:gamma=0.991",
    "attention=msw",
    "attention=re-ttention",
    "attention=re-ttention:density=0.25",
    "tokens=ras",
    "tokens=ras:ratio=0.75",
    "tokens=jit+solver=euler",
    "solver=euler",
    "combine=t-stitch:share=0.2",
    "combine=t-stitch:share=0.4",
    "combine=t-stitch:share=0.6",
)
"""What is measured if nothing is said; guidance takes the model's scale where none is given."""
PLAIN = "plain"
FEWER = (0.75, 0.5, 0.375, 0.25, 0.15)
"""Shares of the steps that the runs of fewer steps take."""


@dataclass(frozen=True)
class Sampled:
    """One run: pixels (B, C, H, W) in [0, 1], seconds of sampling, counters of the run."""

    pixels: Any
    seconds: float
    calls: int
    computed: int = 0
    skipped: int = 0


def parse_run(text: str) -> dict[str, str]:
    """Plan field, or ``steps`` -> value. Raises ValueError for anything else."""
    from dit_tools.core.plan import FIELDS

    made: dict[str, str] = {}
    for part in re.split(r"\+(?!\d)", text):  # numbers go on with a list: heads=3.1+4.0
        field, equals, value = part.partition("=")
        if not equals or field not in {*FIELDS, "steps", "rival"}:
            raise ValueError(f"{text}: give {', '.join(FIELDS)}, steps or rival=..., joined by +")
        made[field] = value
    return made


def plan(model: Any, steps: int, given: Mapping[str, str]) -> Any:
    """The plan of a run: the model's own, with what was given in its place."""
    from dit_tools.core.plan import Plan
    from dit_tools.jobs.options import has_scale, takes_scale
    from dit_tools.methods.caching import PRESETS
    from dit_tools.models.cache_presets import resolve_preset

    specs = {
        "schedule": model.defaults.schedule,
        "solver": model.defaults.solver,
        "noise": "philox",
        "guidance": "cfg",
        "cache": "none",
    } | {k: v for k, v in given.items() if k not in ("steps", "rival")}
    specs["cache"] = resolve_preset(specs["cache"], model.name, int(given.get("steps", steps)), PRESETS)
    guidance = specs["guidance"]
    if takes_scale(guidance) and not has_scale(guidance):
        joint = "," if ":" in guidance else ":"
        specs["guidance"] = f"{guidance}{joint}scale={model.defaults.cfg!r}"
    return Plan.parse(int(given.get("steps", steps)), specs)


def sample_once(
    model: Any, chosen: Any, conditions: Any, seeds: list[int], second: Any = None, scorer: Any = None
) -> Sampled:
    """Sample and count; blocks of runs that hook none count 0. ``second``: of ``--combine``."""
    from dit_tools.core.arrays import to_numpy
    from dit_tools.sampling.sampler import Sampler

    sampler = Sampler(model, chosen)
    sampler.state.scorer = scorer
    noise = sampler.noise(seeds)
    x = noise.fresh()
    rival = getattr(model.network, "start", None)
    if rival:
        rival()
    named = {"second", *(branch.name for branch in chosen.guidance.branches)}  # second prompts
    wanted = {name: conditions[name] for name in conditions if name in named}
    began = time.perf_counter()
    other = second if chosen.combine.takes else None
    for step in sampler.sample(x, wanted, noise, second=other):
        x = step.x
    to_numpy(x)  # waits for the device
    seconds = time.perf_counter() - began
    count = sampler.state.count
    skipped = count["blocks skipped"] + count["modules skipped"]
    computed = count["blocks computed"] + count["modules computed"]
    computed = model.network.computed if rival else computed
    return Sampled(model.codec.decode(x), seconds, count["network calls"], computed, skipped)


def measure(
    model: Any,
    prompts: Sequence[str],
    runs: Sequence[str],
    steps: int,
    rounds: int,
    timed: int = 8,
    retrieval: bool = False,
) -> list[Row]:
    """A row per run and per run of fewer steps; ``timed`` prompts of all are timed in ``rounds``.

    ``retrieval``: with what the image-text model finds, and a first row for the plain run.
    """
    fewer = [f"steps={count}" for count in fewer_steps(steps)]
    plans = {text: plan(model, steps, parse_run(text)) for text in (*fewer, *runs)}
    plans = {PLAIN: plan(model, steps, {}), **plans}
    plans = {name: calibrated(model, chosen) for name, chosen in plans.items()}
    sampling = {name: (carrying(model, name, chosen), chosen) for name, chosen in plans.items()}
    asked = _asked(model, prompts)
    whole = {name: sample_once(*both, *asked) for name, both in sampling.items()}
    asked = _asked(model, prompts[:timed])
    ratios: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(rounds):
        for name, both in sampling.items():
            plain, other = (sample_once(*one, *asked) for one in (sampling[PLAIN], both))
            ratios[name].append(plain.seconds / other.seconds)
    rows = {name: row(name, whole[PLAIN], whole[name], ratios[name]) for name in plans}
    made = judged([rows[name] for name in (*fewer, *runs)], [rows[name] for name in fewer])
    if not retrieval:
        return made
    hits = {name: found(one.pixels, prompts) for name, one in whole.items()}
    return [one.judged(hits[one.run], hits[PLAIN]) for one in (rows[PLAIN], *made)]


def _asked(model: Any, prompts: Sequence[str]) -> tuple[Any, list[int], Any]:
    """Conditions, seeds, and the second model with its conditions, for ``sample_once``."""
    from dit_tools.models.family import ConditionRequest
    from dit_tools.sampling.sampler import Second

    size, other = model.defaults.size, model.second
    asked = ConditionRequest(tuple(prompts), ("",) * len(prompts), Size.square(size))
    second = Second(other, other.encode(asked)) if other else None
    return model.encode(asked), list(range(len(prompts))), second


def found(pixels: Any, prompts: Sequence[str]) -> Any:
    """Whether the own prompt of each image (B, C, H, W) is the nearest of all, by the image-text model."""
    from dit_tools.models.clip import clip64, which_found

    features = clip64().pictures(pixels.clip(0, 1))
    return which_found(features, clip64().texts(list(prompts)), prompts, max(len(prompts), 2))


def calibrated(model: Any, chosen: Any) -> Any:
    """The plan with its cache calibrated, where that needs to be; from prompts of its own."""
    cache = chosen.cache
    if cache.calibrated_by is None or cache.calibration in cache.words:
        return chosen
    from dit_tools.tasks.calibrate.calibration_run import Probe
    from dit_tools.tasks.calibrate.run import calibrate
    from dit_tools.tasks.quantize.denoising_error import default_prompts

    session = _session(apart(model, chosen), chosen, default_prompts)
    return replace(chosen, cache=Probe(cache, calibrate(session)))


def _session(model: Any, chosen: Any, default_prompts: Any) -> Any:
    from dit_tools.tasks.calibrate.calibration_run import CalibrationRun

    size = model.defaults.size
    return CalibrationRun(model, chosen, default_prompts(model, 8), (size, size), seed=5_000_000)


def carrying(model: Any, name: str, chosen: Any) -> Any:
    """The model, or a copy of it that carries a rival's hooks, or is in pieces."""
    text = {} if name == PLAIN else parse_run(name)
    if "rival" not in text:
        return apart(model, chosen)
    from dit_tools.core import spec
    from dit_tools.tasks.calibrate.magcache import calibrate
    from dit_tools.tasks.quantize.denoising_error import default_prompts

    ratios: Any = ()
    if text["rival"].startswith("magcache"):
        hooked = replace(chosen, cache=spec.parse("caching", "magcache"))
        session = _session(model, hooked, default_prompts)
        ratios = next(iter(calibrate(session).values())).tolist()
    return rivals.model_with(model, text["rival"], chosen.steps, ratios)


def apart(model: Any, chosen: Any) -> Any:
    """The model, or a copy that may go to pieces: graphs whose blocks are asked for stay apart."""
    blocks = {"stack"} & frozenset().union(*chosen.needs().values())
    if model.backend == "onnx" and blocks:
        return replace(model, network=copy.copy(model.network))
    return model


def fewer_steps(steps: int) -> list[int]:
    """Distinct numbers of steps below ``steps``, falling, at least 1."""
    counts = {max(round(share * steps), 1) for share in FEWER}
    return sorted((count for count in counts if count < steps), reverse=True)


def row(name: str, plain: Sampled, other: Sampled, ratios: Sequence[float]) -> Row:
    """The figures of one run; ``ratios`` of seconds are those of its rounds."""
    values = psnr(other.pixels.clip(0, 1), plain.pixels.clip(0, 1))
    return Row(
        name,
        other.calls,
        other.computed,
        other.skipped,
        statistics.median(ratios),
        statistics.fmean(values),
        similarity(other.pixels, plain.pixels),
    )


def psnr(pixels: Any, reference: Any) -> list[float]:
    """Decibels of each image of (B, C, H, W) arrays in [0, 1]."""
    from dit_tools.methods.metrics.psnr import Psnr

    return [float(value) for value in Psnr().of(pixels, reference)]


def similarity(pixels: Any, reference: Any) -> float:
    """Mean SSIM over images (B, C, H, W); NaN where they are smaller than its window."""
    from dit_tools.methods.metrics.ssim import WINDOW, Ssim

    if min(pixels.shape[2:]) < WINDOW:
        return math.nan
    return float(Ssim().of(pixels.clip(0, 1), reference.clip(0, 1)).mean())


def offered(model: Any, runs: Sequence[str], steps: int) -> tuple[list[str], list[str]]:
    """The runs that the model's network can carry, and the others."""
    can = {r: _carries(model, steps, parse_run(r)) for r in runs}
    return [r for r in runs if can[r]], [r for r in runs if not can[r]]


def _carries(model: Any, steps: int, given: Mapping[str, str]) -> bool:
    if "rival" in given:
        able = hasattr(model.network, "module") and model.family.batch_branches
        return able and rivals.installed(given["rival"])
    chosen = plan(model, steps, given)
    needs = frozenset().union(*chosen.needs().values())
    trained = chosen.cache.info.name in ("harmonica", "ilf")
    if chosen.combine.takes and model.second is None:
        return False
    return needs | ({"gradients"} if trained else set()) <= model.network.offers


SHEET = Path(__file__).with_name("prompts40.txt")


def prompts_of(count: int, path: Path = SHEET) -> list[str]:
    """The first prompts of a file, one a line, over again where there are not enough."""
    lines = path.read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if line and not line.startswith("#")]
    return [words[i % len(words)] for i in range(count)]


def main() -> None:
    """Load the model, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji", help="built-in name, folder or hub id")
    parser.add_argument("--second-model", metavar="SMALL", help="for t-stitch")
    parser.add_argument("--backend", default="torch", choices=("torch", "onnx"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--prompt-file", type=Path, default=SHEET, metavar="FILE")
    parser.add_argument("--timed", type=int, default=8, help="prompts of a run that is timed")
    parser.add_argument("--rounds", type=int, default=3, help="in which every run is timed")
    parser.add_argument("--run", nargs="+", default=list(RUNS), metavar="SPEC")
    parser.add_argument("--retrieval", action="store_true", help="what the image-text model finds, too")
    parser.add_argument("--json", action="store_true", help="one JSON object per run")
    parser.add_argument("--plot", metavar="FILE", help="also an SVG of PSNR against speed-up")
    a = parser.parse_args()
    from dit_tools.models.compatibility import check_pair
    from dit_tools.models.loading.load import load

    model = load(a.model, backend=a.backend, device=a.device)
    if a.second_model:
        model.second = load(a.second_model, backend=a.backend, device=a.device)
        check_pair(model, model.second, a.second_model)
    runs, left = offered(model, a.run, a.steps)
    if left:
        print(f"not with this model, backend or what is installed: {', '.join(left)}", file=sys.stderr)
    prompts = prompts_of(a.prompts, a.prompt_file)
    rows = measure(model, prompts, runs, a.steps, a.rounds, a.timed, a.retrieval)
    print(as_json(rows) if a.json else table(rows))
    if a.plot:
        Path(a.plot).write_text(plot(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
