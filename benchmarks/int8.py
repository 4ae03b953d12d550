"""What int8 costs and saves on ONNX Runtime: PSNR to float32 on 16 prompts, and the speed ratio.

    python benchmarks/int8.py [--model emoji] [--steps 20] [--rounds 3] [--json]

Each prompt is sampled in float32 and in int8 from the same seed, one after the other in this
process, so that a busy machine slows both; the ratio is the median over prompts and rounds of
float32 seconds by int8 seconds, sampling only, one image at a time with guidance. The first
round warms up and is not counted. PSNR compares decoded images, all channels in [0, 1]. A model
that has no transformer.int8.onnx is quantized into a temporary folder. int8 is worth being the
default where the mean PSNR is at least 30 dB.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dit_tools.core.size import Size

ENOUGH = 30.0  # dB


@dataclass(frozen=True)
class Pair:
    """One prompt in one round: seconds of both, and pixels (C, H, W) of both in [0, 1]."""

    prompt: str
    seconds: tuple[float, float]
    pixels: tuple[Any, Any]


@dataclass(frozen=True)
class Result:
    """What is printed. PSNR in dB over prompts; infinite only if int8 changes nothing."""

    prompts: int
    psnr: float
    psnr_worst: float
    worst_prompt: str
    faster: float

    @property
    def enough(self) -> bool:
        """Whether int8 may be the default."""
        return self.psnr >= ENOUGH


def psnr(a: Any, b: Any) -> float:
    """Peak signal-to-noise ratio in dB of two arrays in [0, 1]."""
    error = float(((a - b) ** 2).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def result(pairs: Sequence[Pair]) -> Result:
    """The figures of all pairs; every round gives the same pixels, so each prompt counts once."""
    found = {pair.prompt: psnr(*pair.pixels) for pair in pairs}
    worst = min(found, key=found.__getitem__)
    faster = statistics.median(plain / int8 for plain, int8 in (pair.seconds for pair in pairs))
    return Result(len(found), statistics.fmean(found.values()), found[worst], worst, faster)


def sample(model: Any, network: Any, prompt: str, seed: int, steps: int) -> tuple[float, Any]:
    """Seconds of sampling and pixels (C, H, W) with this network in place of the model's own."""
    from dataclasses import replace

    from dit_tools.core.plan import Plan
    from dit_tools.models.family import ConditionRequest
    from dit_tools.sampling.sampler import Sampler

    model, size = replace(model, network=network), model.defaults.size
    plan = Plan.parse(
        steps,
        {
            "schedule": model.defaults.schedule,
            "solver": model.defaults.solver,
            "noise": "philox",
            "guidance": f"cfg:scale={model.defaults.cfg}",
            "cache": "none",
        },
    )
    conditions = model.encode(ConditionRequest((prompt,), ("",), Size.square(size)))
    sampler = Sampler(model, plan)
    noise = sampler.noise([seed])
    x = noise.fresh()
    began = time.perf_counter()
    for step in sampler.sample(x, conditions, noise):
        x = step.x
    return time.perf_counter() - began, model.codec.decode(x)[0]


def measure(model: Any, int8: Any, prompts: Sequence[str], steps: int, rounds: int) -> list[Pair]:
    """Pairs of all counted rounds; the first round is thrown away."""
    pairs = []
    for round_ in range(rounds + 1):
        for seed, prompt in enumerate(prompts):
            made = [sample(model, net, prompt, seed, steps) for net in (model.network, int8)]
            if round_:
                seconds, pixels = zip(*made, strict=True)
                pairs.append(Pair(prompt, seconds, pixels))
    return pairs


def int8_network(folder: Path) -> Any:
    """The int8 graph of a model's folder, made for the occasion where there is none."""
    import onnxruntime

    from dit_tools.models.backends.onnx_network import OnnxNetwork
    from dit_tools.tasks.export.int8 import quantize

    with tempfile.TemporaryDirectory() as temporary:
        path = folder / "transformer.int8.onnx"
        if not path.exists():
            path = Path(temporary) / "transformer.int8.onnx"
            quantize(folder / "transformer.onnx", path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    apart = folder / "transformer.context.onnx"
    context = onnxruntime.InferenceSession(apart) if apart.exists() else None
    return OnnxNetwork(session, one_by_one=True, context=context)


def main() -> None:
    """Load, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji", help="built-in name or exported folder")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    a = parser.parse_args()
    from dit_tools.models.loading.load import load
    from dit_tools.models.loading.resolve import resolve

    lines = Path(__file__).with_name("prompts40.txt").read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if line and not line.startswith("#")][: a.prompts]
    int8 = int8_network(resolve(a.model).path)
    model = load(a.model, backend="onnx", dtype="float32")
    found = result(measure(model, int8, words, a.steps, a.rounds))
    if a.json:
        print(json.dumps(asdict(found) | {"enough": found.enough}))
        return
    print(
        f"PSNR of int8 to float32, {found.prompts} prompts: mean {found.psnr:.1f} dB, "
        f"worst {found.psnr_worst:.1f} dB ({found.worst_prompt})"
    )
    print(f"speed: {found.faster:.2f}x of float32")
    print(f"{'enough' if found.enough else 'too little'} for a default ({ENOUGH:.0f} dB)")


if __name__ == "__main__":
    main()
