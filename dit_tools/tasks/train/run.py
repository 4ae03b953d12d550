"""Every stage of a recipe in order, and what a run leaves next to its pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dit_tools.core.errors import UsageError
from dit_tools.tasks.train import card, plot, small_variant
from dit_tools.tasks.train.recipe import Recipe
from dit_tools.tasks.train.training_run import TrainingRun


def run(recipe: Recipe, session: TrainingRun, source: Path | None, stage: str = "all") -> Path | None:
    """Train the recipe's stages, resuming where an earlier session stopped.

    Writes below ``session.run``: checkpoints, ``log.jsonl``, ``loss.png``, sample sheets, and
    ``pipeline``, a diffusers folder with a model card. Returns that folder when training is done.
    ``source`` is the recipe's file, for the card. A recipe of an adapter gives the adapter's file
    instead. For errors see the stages.
    """
    if recipe.adapter.model:
        return _adapter(recipe, session, stage)
    from dit_tools.tasks.train import autoencoder, text_to_image

    recipe = small_variant.resolve_parent(recipe, session.run)
    shared = small_variant.load_parent(recipe) if recipe.transformer.sibling_of else None
    if shared and stage == "autoencoder":
        raise UsageError("a model with sibling_of uses the autoencoder of its parent", "leave out --stage autoencoder")
    try:
        vae: Any = shared.vae if shared else autoencoder.train_autoencoder(recipe, session)
        if stage == "autoencoder":
            return session.run / "vae"
        step, steps = text_to_image.train(recipe, session, vae, shared)
    finally:
        if session.team.leads:
            plot.plot_curve(session.run)
    folder = session.run / "pipeline"
    if session.team.leads:
        card.write_card(folder, recipe, source, plot.read_rows(session.run), step)
    return folder if step == steps else None


def _adapter(recipe: Recipe, session: TrainingRun, stage: str) -> Path | None:
    from dit_tools.tasks.train import train_adapter

    if stage != "all":
        raise UsageError(f"an adapter trains no {stage}", f"leave out --stage {stage}")
    try:
        return train_adapter.train(recipe, session)
    finally:
        if session.team.leads:
            plot.plot_curve(session.run)
