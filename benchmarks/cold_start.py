"""Whole processes, cold: `dit generate` against a plain diffusers script, same image, on the CPU.

    python benchmarks/cold_start.py [--runs 5] [--steps 20] [--model emoji] [--json]

Both load the same built-in folder and use the same starting noise, schedule and guidance. Prints
medians, the ratio, the peak memory of both, the difference of the images, and the start-up times
of the two help texts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "a red apple"
DIFFUSERS = """
import sys
import numpy as np
import torch
from diffusers import DiffusionPipeline
folder, out, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
pipe = DiffusionPipeline.from_pretrained(folder)
net, size = pipe.transformer.config, pipe.vae.config.sample_size
shape = net.in_channels, net.sample_size, net.sample_size
noise = np.random.Generator(np.random.Philox(0)).standard_normal(shape, dtype=np.float32)
image = pipe(sys.argv[4], num_inference_steps=steps, guidance_scale=4.0, height=size, width=size,
               latents=torch.from_numpy(noise)[None], use_resolution_binning=False,
               max_sequence_length=int(sys.argv[5])).images[0]
image.save(out)
"""


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of a whole process, which must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)[:200]}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def difference(a: Path, b: Path) -> tuple[float, int]:
    """PSNR in dB and largest difference in 1/255 of the colour channels of two images."""
    import numpy as np
    from PIL import Image

    x, y = (np.asarray(Image.open(path).convert("RGBA"))[..., :3].astype(float) for path in (a, b))
    mse = float(((x - y) ** 2).mean())
    return (10 * math.log10(255**2 / mse) if mse else math.inf), int(abs(x - y).max())


def measure(runs: int, steps: int, model: str) -> dict[str, float]:
    """All figures, from interleaved runs."""
    from dit_tools.models.loading.resolve import resolve

    folder = resolve(model).path
    facts = json.loads((folder / "dit.json").read_text(encoding="utf-8"))
    dit = [sys.executable, "-m", "dit_cli.main"]
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = Path(scratch) / "dit.png", Path(scratch) / "diffusers.png"
        script = Path(scratch) / "script.py"
        script.write_text(DIFFUSERS, encoding="utf-8")
        commands = {
            "dit": [
                *dit,
                "generate",
                PROMPT,
                "--seed",
                "0",
                "--steps",
                str(steps),
                "--cfg-scale",
                "4",
                "-m",
                model,
                "--overwrite",
                "-o",
                str(ours),
            ],
            "diffusers": [
                sys.executable,
                str(script),
                str(folder),
                str(theirs),
                str(steps),
                PROMPT,
                str(facts["max_tokens"]),
            ],
            "python": [sys.executable, "-c", "pass"],
            "dit --help": [*dit, "--help"],
            "dit generate --help": [*dit, "generate", "--help"],
        }
        figures = {name: [run(command)] for name, command in commands.items()}  # warm-up
        for _ in range(runs):
            for name, command in commands.items():
                figures[name].append(run(command))
        psnr, largest = difference(ours, theirs)
    result: dict[str, float] = {}
    for name, pairs in figures.items():
        result[f"{name} s"] = statistics.median(seconds for seconds, _ in pairs[1:])
        result[f"{name} MB"] = max(memory for _, memory in pairs[1:])
    pairs = zip(figures["diffusers"][1:], figures["dit"][1:], strict=True)
    result["ratio"] = statistics.median(b[0] / a[0] for b, a in pairs)
    return result | {"psnr dB": psnr, "largest difference /255": largest}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--model", default="emoji", help="a folder with graphs, or a built-in")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.runs, arguments.steps, arguments.model)
    if arguments.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:28} {value:10.3f}")


if __name__ == "__main__":
    main()
