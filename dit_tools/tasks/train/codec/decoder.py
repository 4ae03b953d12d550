"""Train the decoder network of the wavelet codec.

``python -m dit_tools.tasks.train.codec.decoder RECIPE --data FOLDER --tables FILE --runs FOLDER``

Resumes from the run's checkpoint; the number of crops may be raised between runs as long as the
final decay of the learning rate, the last quarter, has not begun. ``log.jsonl`` in the run's folder
has the loss over CPU-seconds.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dit_tools.core.errors import InputError
from dit_tools.media.wavelet.tables import Tables
from dit_tools.nn.wavelet_decoder import WaveletDecoder
from dit_tools.tasks.train import checkpoint
from dit_tools.tasks.train.codec.crops import Crops
from dit_tools.tasks.train.optimizers import factor, muon_and_adamw
from dit_tools.tasks.train.training_run import has_bfloat16

MARGIN = 8
"""Pixels at the edge of a crop that the loss does not see: their neighbours are missing."""


@dataclass(frozen=True)
class Recipe:
    """What ``[decoder]`` of a recipe may set."""

    width: int = 128
    blocks: int = 3
    crops: int = 400_000
    batch: int = 8
    side: int = 128
    learning_rate: float = 1e-3
    muon_rate: float = 3e-3
    lowest_step: float = 3.0
    highest_step: float = 110.0
    similarity: float = 0.5  # weight of the loss by local similarity against the squared error
    clothes: int = 12  # takes one of so many photographs of clothes
    seed: int = 1


def load_recipe(path: Path) -> Recipe:
    """Read ``[decoder]`` of a TOML recipe. Raises InputError for an unknown key or no TOML."""
    try:
        return Recipe(**tomllib.loads(path.read_text()).get("decoder", {}))
    except (OSError, TypeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}", "see the recipe of the built-in codec") from error


def relative_loss(restored: Tensor, coded: Tensor, true: Tensor, similarity: float) -> Tensor:
    """What is left of the codec's error, as a share; 1 when the network changes nothing.

    The mean over the crops of the squared error and of one minus the local similarity (SSIM's
    contrast and structure in windows of 8 x 8, at full, half and quarter size), each divided by the
    same of the coded crop, so that every rate and every photograph counts alike.
    """
    inner = (slice(None), slice(None), slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    restored, coded, true = restored[inner], coded[inner], true[inner]
    squared = _share((restored - true).square(), (coded - true).square(), 1.0)
    if similarity <= 0:
        return squared
    total = torch.zeros(())
    for scale in range(3):
        if scale:
            restored, coded, true = (functional.avg_pool2d(x, 2) for x in (restored, coded, true))
        total = total + _share(_dissimilarity(restored, true), _dissimilarity(coded, true), 1e-3)
    return (squared + similarity * total / 3) / (1 + similarity)


def _share(new: Tensor, old: Tensor, floor: float) -> Tensor:
    return (new.mean((1, 2, 3)) / (old.mean((1, 2, 3)) + floor)).mean()


def _dissimilarity(x: Tensor, y: Tensor, constant: float = 58.5225) -> Tensor:
    """One minus the contrast-structure term of SSIM for grey levels 0 to 255."""

    def mean(z: Tensor) -> Tensor:
        return functional.avg_pool2d(z, 8, 4)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    return 1 - (2 * cov + constant) / (vx + vy + constant)


def _hidden(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes a parameter: the kernels between hidden layers."""
    return parameter.ndim == 4 and name.startswith(("first", "second"))


class Run:
    """A training run that can be saved and continued."""

    def __init__(self, recipe: Recipe, folder: Path):
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder, self.crops_seen, self.cpu = recipe, folder, 0, 0.0
        self.net = WaveletDecoder(recipe.width, recipe.blocks).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.net)
        self.optimizers = muon_and_adamw([self.net], recipe.learning_rate, recipe.muon_rate, _hidden)
        state = checkpoint.load_checkpoint(folder / "state.pt")
        if state:
            self.net.load_state_dict(state["net"])
            self.average.load_state_dict(state["average"])
            self.optimizers.load_state_dict(state["optimizers"])
            self.crops_seen, self.cpu = state["crops"], state["cpu"]

    def save(self) -> None:
        """Write the checkpoint."""
        parts: dict[str, Any] = {
            "net": self.net.state_dict(), "average": self.average.state_dict(),
            "optimizers": self.optimizers.state_dict(), "crops": self.crops_seen, "cpu": self.cpu,
        }  # fmt: skip
        checkpoint.save_checkpoint(self.folder / "state.pt", parts)

    def step(self, batch: tuple[Any, Any, Any]) -> float:
        """One update; returns the loss."""
        coded, true, steps = (torch.from_numpy(part).float() for part in batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16("cpu")):
            change = self.net(coded.to(memory_format=torch.channels_last), steps)
        restored = change.float()
        loss = relative_loss(restored, coded, true, self.recipe.similarity)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        count, total = self.crops_seen // self.recipe.batch, self.recipe.crops // self.recipe.batch
        self.optimizers.step(factor(count, total, 100, 0.25))
        share = max(0.004, 1 / (count / 8 + 2))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(new, share)
        self.crops_seen += self.recipe.batch
        return float(loss.detach())


def train(recipe: Recipe, data: Path, tables: Tables, folder: Path) -> WaveletDecoder:
    """Run a recipe to its end and return the averaged network."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, folder)
    crops = Crops(data, tables, recipe.seed + run.crops_seen, recipe.lowest_step,
                  recipe.highest_step, recipe.clothes)  # fmt: skip
    losses: list[float] = []
    used, saved = time.process_time(), time.monotonic()
    while run.crops_seen < recipe.crops:
        losses.append(run.step(crops.batch(recipe.batch, recipe.side)))
        now = time.process_time()
        run.cpu, used = run.cpu + now - used, now
        if len(losses) == 100:
            line = {"crops": run.crops_seen, "cpu_s": round(run.cpu, 1),
                    "loss": round(sum(losses) / len(losses), 5)}  # fmt: skip
            losses.clear()
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
        if time.monotonic() - saved > 120:
            run.save()
            saved = time.monotonic()
    run.save()
    return run.average


def main() -> None:
    """Entry point of ``python -m``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("DIT_DATA", "data")))
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/codec"))
    options = parser.parse_args()
    train(load_recipe(options.recipe), options.data, Tables.load(options.tables), options.runs)


if __name__ == "__main__":
    main()
