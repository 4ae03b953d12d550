"""Every objective of `dit train` against plain training: three seeds, equal images.

    python benchmarks/objectives.py                     # goes on where it stopped; prints the table
    python benchmarks/objectives.py --write benchmarks/results/training.md

Each cell of the table (objective, seed) trains a small transformer again on the latents and the
frozen text encoder of a finished model (--base), on a few groups of emoji ($DIT_DATA):
few images, so that a short run draws what can be recognised. A cell is kept as
a JSON file, so that a stopped run goes on. An objective of the autoencoder trains all parts again at
32 px and is compared with runs that do the same. Measured with the moving average:

loss       squared error of the velocity, times spread evenly, the same noise for every cell
frechet    judge features, images of 20 steps (guidance 2) against the real ones; "few": 4 steps
retrieval  own name nearest among 100, in %, 20 steps
psnr       of the autoencoder, in dB, and with noise of 0.3 deviations on its latents

Verdict: "better" or "worse" where the means are apart by more than the spread (highest minus lowest
seed) of either side, else "within the seed spread".
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dit_tools.methods.metrics.frechet import frechet
from dit_tools.models.clip import clip64, share_found
from dit_tools.tasks.train import autoencoder, dataset, latents, small_variant
from dit_tools.tasks.train import recipe as recipes
from dit_tools.tasks.train.networks import Networks, sample_images, tokenize
from dit_tools.tasks.train.run import run
from dit_tools.tasks.train.training_run import TrainingRun

VARIANTS = {
    "plain": (),
    "uniform": ("uniform",),
    "immiscible": ("immiscible",),
    "sra": ("sra",),
    "repa": ("repa:encoder={encoder}",),
    "haste": ("haste:encoder={encoder},pairs=2",),
    "masking": ("masking",),
    "curriculum": ("curriculum:clusters=5,patience=50",),
    "interval-clustering": ("interval-clustering",),
}
WHOLE = {"plain, whole": (), "variance-expansion": ("variance-expansion",)}
"""Trained from the autoencoder on."""
WHOLE_SIZE = 32  # pixels
GROUPS = (
    "Food & Drink",
    "Animals & Nature",
    "Smileys & Emotion",
    "Travel & Places",
    "Objects",
    "Activities",
    "Symbols",
    "People & Body",
    "Flags",
)
METRICS = {"loss": -1, "frechet": -1, "frechet few": -1, "retrieval": 1, "psnr": 1, "psnr noisy": 1}
"""Name -> whether higher or lower is better."""
BEGIN, END = "<!-- objectives: begin -->", "<!-- objectives: end -->"


def recipe(options: argparse.Namespace, name: str, seed: int) -> recipes.Recipe:
    """The recipe of a cell; for a whole run a model of its own, else a sibling of the base."""
    whole = name in WHOLE
    texts = (WHOLE if whole else VARIANTS)[name]
    objectives = tuple(text.format(encoder=options.encoder) for text in texts)
    weights = {group: float(group in options.groups) for group in GROUPS}
    return recipes.Recipe(
        file_name(name, seed),
        recipes.Data(
            "emoji/captions.jsonl", ("fluent3d",), WHOLE_SIZE if whole else options.size, {"fluent3d": ("3d",)}, weights
        ),
        seed,
        recipes.Autoencoder(
            (16, 32, 64), 8, 1, 1, 16, options.autoencoder_pictures, objectives=objectives if whole else ()
        ),
        recipes.Tokenizer(1024),
        recipes.TextEncoder(64, 1, 2, 10),
        recipes.Transformer(
            options.width,
            4,
            options.layers,
            2,
            64,
            options.pictures,
            warmup_steps=20,
            ema_decay=0.99,
            objectives=() if whole else objectives,
            sibling_of="" if whole else options.base,
        ),
    )


def file_name(name: str, seed: int) -> str:
    """Of a cell's run and of its figures."""
    return f"{name.replace(', ', '-')}-{seed}"


def done(options: argparse.Namespace, name: str, seed: int) -> bool:
    """Whether a cell is measured already."""
    return (options.folder / "cells" / f"{file_name(name, seed)}.json").exists()


def cell(options: argparse.Namespace, name: str, seed: int) -> dict[str, float]:
    """Train and measure one cell, or read what an earlier run measured."""
    made = recipe(options, name, seed)
    path = options.folder / "cells" / f"{made.name}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    folder, encoded = options.folder / made.name, options.folder / latents.LATENTS_FILE
    folder.mkdir(parents=True, exist_ok=True)
    if encoded.exists() and name not in WHOLE:  # the same for all siblings
        shutil.copy(encoded, folder)
    start = time.process_time()
    run(made, TrainingRun(folder, dtype="float32", save_every=500, sample_every=10**6), None)
    seconds = time.process_time() - start
    if not encoded.exists() and name not in WHOLE:
        shutil.copy(folder / latents.LATENTS_FILE, encoded)
    found = measure(folder, made, options.count) | {"cpu seconds": round(seconds, 1)}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found), encoding="utf-8")
    shutil.rmtree(folder)
    print(json.dumps({"cell": path.stem, **found}), flush=True)
    return found


# measuring --------------------------------------------------------------------------------------


def measure(folder: Path, made: recipes.Recipe, count: int) -> dict[str, float]:
    """The metrics of a finished run, over ``count`` images."""
    data, captions = dataset.read_dataset(made.data, skin_tones=False)
    drawn_from = np.flatnonzero(dataset.sampling_weights(captions, made.data))
    chosen = np.random.default_rng(0).permutation(drawn_from)[:count]
    data, names = data[chosen], [captions[i].name for i in chosen]
    networks, vae, words = trained(folder, made)
    found: dict[str, float] = {"loss": loss(networks, vae, words, data, names)}
    real = features(data[:, :3] / 255)
    for key, steps in (("frechet few", 4), ("frechet", 20)):
        drawn = [
            sample_images(networks, vae, words, names[i : i + 64], steps, 2.0, i) for i in range(0, len(names), 64)
        ]
        seen = features((torch.cat(drawn)[:, :3].numpy() + 1) / 2)
        found[key] = frechet(seen, real)
    found["retrieval"] = 100 * share_found(seen, clip64().texts(names), names)
    if not made.transformer.sibling_of:
        found |= {"psnr": autoencoder.psnr(vae, data), "psnr noisy": noisy(vae, data)}
    return {key: round(float(value), 4) for key, value in found.items()}


def features(pixels: Any) -> np.ndarray:
    """Judge features (N, F) of images (N, 3, H, W) in [0, 1]."""
    return clip64().pictures(np.asarray(pixels, np.float32))


def trained(folder: Path, made: recipes.Recipe) -> tuple[Networks, Any, Any]:
    """The moving average of a run, its autoencoder and its tokenizer."""
    from diffusers import DiffusionPipeline

    pipe: Any = DiffusionPipeline.from_pretrained(folder / "pipeline")
    networks = Networks(small_variant.resolve_parent(made, folder), len(pipe.tokenizer), pipe.text_encoder)
    networks.transformer = pipe.transformer
    return networks.eval(), pipe.vae.eval(), pipe.tokenizer


@torch.no_grad()
def loss(networks: Networks, vae: Any, words: Any, data: np.ndarray, names: Sequence[str]) -> float:
    """Mean squared error of the velocity at evenly spread times, fixed noise."""
    x0 = autoencoder.encode(vae, data)
    x0 = x0 / x0.std()  # latents that are not normalized alike
    ids, mask = tokenize(words, list(names))
    values = []
    for draws in range(4):
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(draws))
        order = torch.randperm(len(x0), generator=torch.Generator().manual_seed(draws))
        t = (order + 0.5) / len(x0)
        at = t[:, None, None, None]
        velocity = networks((1 - at) * x0 + at * noise, t, ids, mask)
        values.append((velocity - (noise - x0)).square().mean().item())
    return float(np.mean(values))


@torch.no_grad()
def noisy(vae: Any, data: np.ndarray) -> float:
    """PSNR in dB with Gaussian noise of 0.3 deviations on the latents."""
    z = autoencoder.encode(vae, data)
    z = z + 0.3 * z.std() * torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    made = vae.decode(z).sample.clamp(-1, 1)
    error = (made - autoencoder.to_tensor(data))[:, :3].square().mean(dim=(1, 2, 3)) / 4
    return (-10 * torch.log10(error)).mean().item()


# the table --------------------------------------------------------------------------------------


def verdict(plain: Sequence[float], other: Sequence[float], sign: int) -> str:
    """In words, whether ``other`` differs from ``plain`` by more than the seeds of either do."""
    if min(len(plain), len(other)) < 2:
        return "too few seeds"
    apart = sign * (float(np.mean(other)) - float(np.mean(plain)))
    spread = max(max(values) - min(values) for values in (plain, other))
    if abs(apart) <= spread:
        return "within the seed spread"
    return "better" if apart > 0 else "worse"


def rows(
    cells: dict[str, list[dict[str, float]]], reference: str, shown: Sequence[str], signs: Mapping[str, int] = METRICS
) -> str:
    """Markdown rows: mean and (lowest to highest) of the metrics, and the verdicts."""
    lines = []
    for name, found in cells.items():
        parts = [name, str(len(found))]
        words = []
        for metric in shown:
            values = [row[metric] for row in found]
            parts.append(f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})")
            if name != reference:
                mine = [row[metric] for row in cells[reference]]
                words.append(f"{metric} {verdict(mine, values, signs[metric])}")
        for same in ("within the seed spread", "too few seeds"):
            if words and all(word.endswith(same) for word in words):
                words = [same]
        lines.append(f"| {' | '.join(parts)} | {'; '.join(words) or 'reference'} |")
    return "\n".join(lines)


def table(cells: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> str:
    """Both tables in Markdown, with what they were measured on."""
    text = (
        f"Emoji of {', '.join(options.groups)} at {options.size} px on the latents of "
        f"{options.base}, transformers of "
        f"{options.layers} blocks of width {options.width}, {options.pictures:,} images a cell, "
        f"{options.count} images measured, encoder of repa and haste: {options.encoder}. Mean "
        "(lowest to highest seed).\n"
    )
    for group, reference, shown in (
        (VARIANTS, "plain", ("loss", "frechet", "frechet few", "retrieval")),
        (WHOLE, "plain, whole", ("psnr", "psnr noisy", "frechet", "retrieval")),
    ):
        here = {name: cells[name] for name in group if cells.get(name)}
        if reference in here:
            if group is WHOLE:
                text += (
                    f"\nTrained from the autoencoder on ({options.autoencoder_pictures:,} "
                    f"images for it), {WHOLE_SIZE} px:\n"
                )
            heads = ["objective", "seeds", *shown, "verdict"]
            text += f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n"
            text += rows(here, reference, shown) + "\n"
    return text


def write(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Put the table between the marks of a document."""
    whole = path.read_text(encoding="utf-8")
    before, rest = whole.split(begin)
    path.write_text(f"{before}{begin}\n{text}{end}{rest.split(end)[1]}", encoding="utf-8")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/objectives"))
    parser.add_argument("--base", default="emoji", help="model whose latents all cells share")
    parser.add_argument("--size", type=int, default=128, help="pixels, those of the base")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS[:2]))
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--pictures", type=int, default=30_000, help="a cell trains on")
    parser.add_argument("--autoencoder-pictures", type=int, default=20_000)
    parser.add_argument("--count", type=int, default=256, help="images measured")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", default="patches", help="of repa and haste")
    parser.add_argument("--only", nargs="*", help="objectives, next to plain")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no cell after these")
    parser.add_argument("--write", type=Path, help="document that gets the table")
    return parser.parse_args()


def main() -> None:
    """Train what is missing and print the table."""
    options = parse()
    end = time.monotonic() + 60 * options.minutes
    wanted = options.only
    cells: dict[str, list[dict[str, float]]] = {}
    for group in (VARIANTS, WHOLE):
        chosen = [n for n in group if not wanted or n in wanted or not group[n]]
        for seed in range(options.seeds) if len(chosen) > 1 else ():
            for name in chosen:
                if time.monotonic() < end or done(options, name, seed):
                    cells.setdefault(name, []).append(cell(options, name, seed))
    text = table(cells, options)
    print(text)
    if options.write:
        write(options.write, text)


if __name__ == "__main__":
    main()
