"""What a cache saves in an edit and what it costs: seconds and PSNR against the edit without one.

    OMP_NUM_THREADS=1 python benchmarks/editing_caches.py [--model emoji] [--rounds 3] [--edit SPEC] [--cache SPEC ...]

The model is loaded once, on ONNX Runtime, and draws an image of every source prompt. In every round
each edit is made without and with each cache, one after the other in this process, so that a busy
machine slows all of them: encoding, sampling and decoding. The first round warms up and is not
counted. ``faster`` is the median over rounds of the seconds without a cache by those with it. PSNR
compares the decoded edits of both, channel values in [0, 1]: mean and worst over the edits.
``ertacache`` is calibrated first, on other prompts.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAIRS = (
    ("a red apple", "a green apple"),
    ("cat face", "dog face"),
    ("red heart", "blue heart"),
    ("a slice of pizza", "a hamburger"),
)
CACHES = ("output:interval=2", "ertacache")


def calibrated(model: str, text: str, folder: Path) -> str:
    """The spec with the file of its calibration, which is made."""
    from dit_tools.core import spec
    from dit_tools.tasks.calibrate import run, start

    session, _ = start.start_calibration(
        {"model": model, "backend": "onnx", "cache": text}, 8, 1, 0, lambda done, total: None
    )
    path = run.write_calibration(run.calibrate(session), folder / f"{len(list(folder.iterdir()))}.safetensors")
    from dataclasses import replace

    return spec.format(replace(session.plan.cache, calibration=str(path)))


class Edits:
    """Edits of images that the model drew, each timed from pixels to pixels."""

    def __init__(self, model: str, method: str):
        from dit_tools.core import spec
        from dit_tools.jobs.models import load_model, open_sampler
        from dit_tools.jobs.settings import merge_settings

        self.base = {"model": model, "backend": "onnx"}
        self.settings = merge_settings([self.base])
        self.model, self.method = load_model(self.settings), spec.parse("editing", method)
        sampler, self.images = open_sampler(self.model, self.settings), []
        for source, _ in PAIRS:
            noise = sampler.noise([0])
            conditions = sampler.conditions(sampler.request([source]))
            *_, last = sampler.sample(noise.fresh(), conditions, noise)
            pixels = self.model.codec.decode(last.x)[0].transpose(1, 2, 0)
            self.images.append(pixels.clip(0, 1))

    def make(self, cache: str) -> tuple[float, list[Any]]:
        """Seconds of all edits with a cache, and their pixels (C, H, W)."""
        from dit_tools.core import spec
        from dit_tools.jobs.models import open_sampler
        from dit_tools.jobs.settings import merge_settings
        from dit_tools.media import crop
        from dit_tools.media.image import Picture
        from dit_tools.tasks.edit.run_edit import Part, Task, edit_latents

        settings = merge_settings([{**self.base, "cache": cache}])
        inversion, made = spec.parse("inversion", "ddim"), []
        began = time.perf_counter()
        for (source, target), pixels in zip(PAIRS, self.images, strict=True):
            sampler = open_sampler(self.model, settings)
            image = Picture(pixels, None, None, 8, "png")
            part = Part(sampler, image, None, None, crop.whole_image(pixels.shape[:2], sampler.size))
            task = Task("image.png", target, source, None, self.method, settings, 0)
            found = edit_latents(part, task, inversion)
            assert found.latents is not None, "the edit changes something"
            made.append(self.model.codec.decode(found.latents)[0].clip(0, 1))
        return time.perf_counter() - began, made


def psnr(a: Any, b: Any) -> float:
    """In dB; infinite for equal images."""
    error = float(((a - b) ** 2).mean())
    return -10 * math.log10(error) if error else math.inf


def measure(edits: Edits, caches: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """A row for every cache."""
    seconds: dict[str, list[float]] = {name: [] for name in ("none", *caches)}
    images: dict[str, list[Any]] = {}
    for count in range(rounds + 1):
        for name in seconds:
            taken, images[name] = edits.make(name)
            if count:
                seconds[name].append(taken)
    rows = []
    for name in caches:
        ratios = [plain / cached for plain, cached in zip(seconds["none"], seconds[name], strict=True)]
        near = [psnr(a, b) for a, b in zip(images["none"], images[name], strict=True)]
        rows.append(
            {
                "cache": name.partition(",calibration=")[0].partition(":calibration=")[0],
                "faster": round(statistics.median(ratios), 2),
                "psnr": round(statistics.mean(near), 1),
                "worst": round(min(near), 1),
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--edit", default="flowedit")
    parser.add_argument("--cache", nargs="+", default=list(CACHES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        caches = [calibrated(a.model, c, Path(folder)) if c.startswith("ertacache") else c for c in a.cache]
        rows = measure(Edits(a.model, a.edit), caches, a.rounds)
    if a.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
        return
    print(f"{'cache':<34}{'faster':>8}{'PSNR':>8}{'worst':>8}")
    for row in rows:
        print(f"{row['cache']:<34}{row['faster']:>8.2f}{row['psnr']:>8.1f}{row['worst']:>8.1f}")


if __name__ == "__main__":
    main()
