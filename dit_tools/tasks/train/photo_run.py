"""A photographic recipe from the first step to the folder that ``-m`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dit_tools.tasks.train import photo_networks
from dit_tools.tasks.train.photo_recipe import PhotoRecipe
from dit_tools.tasks.train.photographs import Patches, data_root, read
from dit_tools.tasks.train.training_run import TrainingRun

MODEL = "model"
CALIBRATION = 24  # images whose activations give the ranges of int8


def run(recipe: PhotoRecipe, session: TrainingRun, folder: str | None = None) -> Path:
    """Train, or go on, and write ``session.run``/model; its path.

    For the errors see ``photo_networks.train``.
    """
    weights = photo_networks.train(recipe, session, folder)
    return export(recipe, weights, session.run / MODEL, folder)


def export(recipe: PhotoRecipe, weights: Path, target: Path, folder: str | None = None) -> Path:
    """Graphs of finished weights in float32, and in int8 with ranges from training inputs."""
    from dit_tools.tasks.export import photo

    if not recipe.int8:
        return photo.export(weights, target, facts(recipe))
    root = data_root(folder)
    patches = Patches(recipe, [read(each, root, lambda event: None) for each in recipe.data])
    return photo.export(weights, target, facts(recipe), _inputs(recipe, patches))


def facts(recipe: PhotoRecipe) -> dict[str, Any]:
    """What ``photo.json`` says of a recipe's network."""
    n = recipe.network
    told = {key: value for key in ("title", "licence") if (value := getattr(recipe, key))}
    if recipe.task == "superres":
        # Each convolution sees one pixel further: the first, two in a block, the last.
        return {**told, "task": "superres", "scales": n.scales, "overlap": 2 * n.blocks[0] + 4, "multiple": 1}
    strides = [2 ** (level + 1) for level in range(len(n.widths))]
    both = [2] * (len(strides) - 1) + [1]  # blocks on the way down and up; once at the bottom
    reach = 2 * strides[0] + sum(2 * b * s * k for b, s, k in zip(n.blocks, strides, both, strict=True))
    multiple = strides[-1]
    return {**told, "task": "restore", "overlap": -(-(reach + multiple) // multiple) * multiple, "multiple": multiple}


def _inputs(recipe: PhotoRecipe, patches: Patches) -> list[Any]:
    made: list[Any] = []
    step = recipe.training.steps  # patches that training did not see
    while len(made) < CALIBRATION:
        batch = patches.upscaling(step)[1] if recipe.task == "superres" else patches.restoring(step)[0]
        made += list(batch)
        step += 1
    return made[:CALIBRATION]
