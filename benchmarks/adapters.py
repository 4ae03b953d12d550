"""Every adapter of `dit train` on a new style: three seeds, equal images.

    python benchmarks/adapters.py                       # goes on where it stopped; prints the table
    python benchmarks/adapters.py --write benchmarks/results/training.md

Each cell (adapter, seed) adapts the built-in model to ``--few`` images of a style that it has
never seen (``--style``, emoji of $DIT_DATA), each seen 200 times, as `dit train`
does when the recipe says nothing. The finished file is loaded as ``--lora`` loads it:

loss       squared error of the velocity, eight times, fixed noise; "new": of another group
found      % of images of the trained names that are nearest their own of the trained images,
           by the image-text model
frechet    judge features of images of the other group's names against the real ones of the style
kB         size of the adapter's file

"none" is the model as it is. Verdicts compare with ``lora``, as ``objectives.py`` does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from dit_tools.core.size import Size

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import objectives

RATES = {
    "lora": 1e-3,
    "lora:rank=4": 1e-3,
    "difffit": 1e-2,
    "difffit:scales=false": 1e-2,
    "diffscaler": 1e-3,
    "diffscaler:width=0": 1e-3,
}
"""Adapter -> learning rate."""
NONE, REFERENCE = "none", "lora"
METRICS = {"loss": -1, "loss new": -1, "found": 1, "frechet": -1, "kB": -1}
TRAINED, OTHER = "Food & Drink", "Animals & Nature"
FEW = "trained"
TIMES = (0.06, 0.19, 0.31, 0.44, 0.56, 0.69, 0.81, 0.94)
BEGIN, END = "<!-- adapters: begin -->", "<!-- adapters: end -->"


def recipe(options: argparse.Namespace, method: str, seed: int) -> Any:
    """The recipe of a cell."""
    from dit_tools.tasks.train import recipe as recipes

    name = objectives.file_name(method.replace(":", "-"), seed)
    data = recipes.Data(folder=str(options.folder / FEW), size=options.size)
    adapter = recipes.Adapter(options.base, method, samples=options.pictures, learning_rate=RATES.get(method, 1e-3))
    return recipes.Recipe(name, data, seed, adapter=adapter)


def prepare(options: argparse.Namespace) -> None:
    """Put the style's images of both groups into folders of their own, with captions alongside."""
    from PIL import Image

    from dit_tools.tasks.train import dataset
    from dit_tools.tasks.train import recipe as recipes

    for group in (TRAINED, OTHER):
        folder = options.folder / group
        if folder.is_dir():
            continue
        weights = {name: float(name == group) for name in objectives.GROUPS}
        wanted = recipes.Data("emoji/captions.jsonl", (options.style,), options.size, {}, weights)
        data, captions = dataset.read_dataset(wanted, skin_tones=False)
        folder.mkdir(parents=True)
        for i in np.flatnonzero(dataset.sampling_weights(captions, wanted)):
            Image.fromarray(data[i].transpose(1, 2, 0), "RGBA").save(folder / f"{i:04d}.png")
            (folder / f"{i:04d}.txt").write_text(captions[i].name, encoding="utf-8")
    if not (few := options.folder / FEW).is_dir():
        few.mkdir()
        every = sorted((options.folder / TRAINED).glob("*.png"))
        for path in every[:: max(len(every) // options.few, 1)][: options.few]:
            for one in (path, path.with_suffix(".txt")):
                shutil.copy(one, few)


def cell(options: argparse.Namespace, method: str, seed: int) -> dict[str, float]:
    """Train and measure one cell, or read what an earlier run measured."""
    from dit_tools.tasks.train.run import run
    from dit_tools.tasks.train.training_run import TrainingRun

    made = recipe(options, method, seed)
    path = options.folder / "cells" / f"{made.name}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    file = None
    if method != NONE:
        session = TrainingRun(options.folder / made.name, dtype="float32", save_every=500, sample_every=10**6)
        file = run(made, session, None)
    found = measure(options, file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found), encoding="utf-8")
    print(json.dumps({"cell": path.stem, **found}), flush=True)
    return found


def measure(options: argparse.Namespace, file: Path | None) -> dict[str, float]:
    """The metrics of the model with an adapter's file."""
    from dit_tools.methods.metrics.frechet import frechet
    from dit_tools.models.loading.load import LoadOptions, load
    from dit_tools.tasks.quantize import denoising_error

    model: Any = load(options.base, LoadOptions(backend="torch", loras=(str(file),) if file else ()))
    found = {"kB": file.stat().st_size / 1000 if file else 0.0}
    for key, group in (("", FEW), (" new", OTHER)):
        data, names = drawn_from(options, group)
        found["loss" + key] = loss(model, data, names)
        made = np.stack([one.pixels[:3] for one in denoising_error.sample_prompts(model, names, 10)])
        drawn, real = objectives.features(made), objectives.features(data[:, :3] / 255)
        if group == FEW:
            nearest = (drawn @ real.T).argmax(1)  # features have length 1
            found["found"] = 100 * float((nearest == np.arange(len(real))).mean())
        else:
            found["frechet"] = frechet(drawn, real)
    return {key: round(float(value), 4) for key, value in found.items()}


def drawn_from(options: argparse.Namespace, group: str) -> tuple[np.ndarray, list[str]]:
    """Images of a group, uint8 (N, 4, size, size), and their names."""
    from dit_tools.tasks.train import image_folder

    data, names = image_folder.read_folder(options.folder / group, options.size, lambda event: None)
    rows = np.random.default_rng(0).permutation(len(data))[: options.count]
    return data[rows], [names[i] for i in rows]


def loss(model: Any, data: np.ndarray, names: list[str]) -> float:
    """Mean squared error of the velocity, the same noise for every model."""
    import torch

    from dit_tools.models.family import ConditionRequest

    size = data.shape[-1]
    parts = [model.codec.encode(data[i : i + 16].astype(np.float32) / 255) for i in range(0, len(data), 16)]
    x0 = torch.cat([torch.as_tensor(part) for part in parts]).float()
    words = ConditionRequest(tuple(names), ("",) * len(names), Size.square(size), ("cond",))
    condition, errors = model.encode(words)["cond"], []
    for seed, t in enumerate(TIMES):
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
        x = model.path.alpha(t) * x0 + model.path.sigma(t) * noise
        raw = model.network(**model.family.inputs(x, t, condition))
        velocity = torch.as_tensor(model.family.read(raw, x, t).raw)
        errors.append((velocity - (noise - x0)).square().mean().item())
    return float(np.mean(errors))


def table(cells: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> str:
    """Markdown, with what it was measured on."""
    text = (
        f"{options.base} adapted to {options.few} images of the style {options.style} "
        f"({TRAINED}), seen {options.pictures or 'some 4,000'} times in all; {options.count} "
        f"images of {OTHER} for what is new. Mean (lowest to highest seed).\n"
    )
    shown = ("loss", "loss new", "found", "frechet", "kB")
    heads = ["adapter", "seeds", *shown, "verdict"]
    text += f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
    return text + objectives.rows(cells, REFERENCE, shown, METRICS) + "\n"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/adapters"))
    parser.add_argument("--base", default="emoji", help="model that is adapted")
    parser.add_argument("--size", type=int, default=128, help="pixels, those of the base")
    parser.add_argument("--style", default="noto")
    parser.add_argument("--few", type=int, default=20, help="images of the style to adapt to")
    parser.add_argument("--pictures", type=int, default=0, help="seen in all; 0: each 200 times")
    parser.add_argument("--count", type=int, default=64, help="images of the other group")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="adapters, next to none and lora")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no cell after these")
    parser.add_argument("--write", type=Path, help="document that gets the table")
    return parser.parse_args()


def main() -> None:
    """Train what is missing and print the table."""
    options = parse()
    end = time.monotonic() + 60 * options.minutes
    prepare(options)
    chosen = [m for m in RATES if not options.only or m in options.only or m == REFERENCE]
    cells: dict[str, list[dict[str, float]]] = {NONE: [cell(options, NONE, 0)]}
    for seed in range(options.seeds):
        for method in chosen:
            if time.monotonic() < end:
                cells.setdefault(method, []).append(cell(options, method, seed))
    text = table(cells, options)
    print(text)
    if options.write:
        objectives.write(options.write, text, BEGIN, END)


if __name__ == "__main__":
    main()
