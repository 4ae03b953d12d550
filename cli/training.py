"""What ``dit train`` does once its options are read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import InputError, UsageError
from dit_tools.tasks.train import recipe as recipes

PHOTO_LEFT = ("checkpoint.pt", "log.jsonl", "model.safetensors")
RUN_FILES = ("transformer.pt", "vae.pt", "adapter.pt", "log.jsonl", "loss.png", "latents.safetensors")


def recipe_file(argument: str | None, option: str | None) -> Path:
    """The file of the recipe that was asked for. Raises UsageError unless there is exactly one."""
    from dit_tools.tasks.train import builtin_recipes

    if (argument is None) == (option is None):
        known = ", ".join(builtin_recipes.paths())
        reason = "no recipe was given" if argument is None else "a recipe was given twice"
        raise UsageError(reason, f"give one TOML file, or one of {known}")
    return builtin_recipes.find(argument or option or "")


def fit_terminal_step(model: str, data: str | None, recipe: str | None, tell: Callable[[dict[str, Any]], None]) -> Path:
    """The file of the extra step of ``--noise oms`` for a model's folder. Raises UsageError."""
    from dit_tools.tasks.train import one_more_step

    if recipe is not None:
        raise UsageError("--terminal-step takes no recipe", "leave out RECIPE")
    if data is None:
        raise UsageError("--terminal-step needs images", "give --data FOLDER with captioned images")
    return one_more_step.fit(Path(model), Path(data), tell)


def plan(
    recipe: recipes.Recipe, run: Path, device: str, dtype: str, tell: Callable[[dict[str, Any]], None]
) -> tuple[dict[str, Any], list[str]]:
    """What a run would do, as a table and in words."""
    from dit_tools.tasks.train import preview
    from dit_tools.tasks.train.training_run import TrainingRun, check_device

    found = preview.preview(recipe, TrainingRun(run, check_device(device), dtype, tell=tell))
    return found, preview.lines(found)


def prepare(path: Path, data: str | None, objectives: tuple[str, ...], adapter: str | None = None) -> recipes.Recipe:
    """The recipe with what the command line changes of it; nothing heavy is imported."""
    made = recipes.load_recipe(path)
    if data is not None:
        listed = made.data.captions and (Path(data) / made.data.captions).is_file()
        changes: dict[str, str] = {"root": data} if listed else {"folder": data, "captions": ""}
        made = replace(made, data=replace(made.data, **changes))
    if made.data.folder and not Path(made.data.folder).exists():
        raise InputError(f"{made.data.folder}: no such folder or zip", "correct --data or [data]")
    if adapter is not None and not made.adapter.model:
        raise UsageError("--adapter: the recipe trains a model", "give one with [adapter]")
    if adapter is not None:
        made = replace(made, adapter=replace(made.adapter, method=adapter))
    for text in objectives:
        section = spec.parse("objectives", text).stage
        if made.adapter.model and section == "autoencoder":
            raise UsageError(f"--objective {text}: it trains an autoencoder, and an adapter has none", "leave it out")
        section = "adapter" if made.adapter.model else section
        old = getattr(made, section)
        made = replace(made, **{section: replace(old, objectives=(*old.objectives, text))})
    return made


def resolve_sizes(recipe: recipes.Recipe, run: Path) -> recipes.Recipe:
    """The recipe of a run in this folder, with the sizes of the model that it is a sibling of."""
    from dit_tools.tasks.train import small_variant

    return small_variant.resolve_parent(recipe, run)


def start(
    recipe: recipes.Recipe,
    source: Path,
    run: Path,
    stage: str,
    overwrite: bool,
    tell: Callable[[dict[str, Any]], None],
    options: dict[str, Any],
) -> Path | None:
    """Run the recipe; the finished folder, or None when it stopped early as it was told to.

    Raises KeyboardInterrupt after Ctrl-C, with everything saved.
    """
    from dit_tools.jobs.atomic import write_error
    from dit_tools.jobs.interrupt import Interruptible
    from dit_tools.tasks.train.distributed import join_team
    from dit_tools.tasks.train.run import run as train
    from dit_tools.tasks.train.training_run import Interrupted, TrainingRun, check_device

    team, options["device"] = join_team(check_device(options["device"]))
    options["team"] = team
    if not team.leads:
        tell = _silent
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(run, error) from None
    with team.first():
        if overwrite and team.leads:
            _clear(run)
    with Interruptible() as interrupts:
        session = TrainingRun(run, tell=tell, interrupts=interrupts, **options)
        try:
            made = train(recipe, session, source, stage)
            team.wait()
            return made
        except Interrupted:
            if interrupts.stop_requested:
                raise
            return None


def _silent(event: dict[str, Any]) -> None:
    """What every process but the first one tells."""


def is_first_process() -> bool:
    """Whether this process is the one that prints and exports."""
    import os

    return os.environ.get("RANK", "0") == "0"


def _clear(run: Path) -> None:
    """Remove an earlier run, and nothing that it did not write."""
    for name in RUN_FILES:
        (run / name).unlink(missing_ok=True)
    for name in ("vae", "tokenizer", "pipeline"):
        shutil.rmtree(run / name, ignore_errors=True)
    for sheet in run.glob("sheet-[0-9]*.png"):
        sheet.unlink()


def export_to(pipeline: Path, folder: Path, recipe: recipes.Recipe) -> None:
    """The finished pipeline as a folder with ONNX graphs, compared with PyTorch."""
    from dit_tools.tasks.export.builtin import export
    from dit_tools.tasks.train import card

    documents = {"README.md": (pipeline / "README.md").read_text(encoding="utf-8")}
    export(pipeline, folder, card.facts(recipe), documents)


def photo_recipe(path: Path) -> Any:
    """The recipe of a network for photographs, or None when the file is one of another kind.

    The name of a built-in one stands for its recipe.
    """
    import tomllib

    from dit_tools.models import photo
    from dit_tools.tasks.train import photo_recipe as photos

    if str(path) in photo.names() and not path.exists():
        path = photo.BUILTIN / path / "recipe.toml"

    try:
        made = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # told by the reader of the other kind
        return None
    return photos.build(made, path) if photos.is_photo(made) else None


def start_photo(
    recipe: Any,
    run: Path,
    data: str | None,
    overwrite: bool,
    tell: Callable[[dict[str, Any]], None],
    options: dict[str, Any],
) -> Path | None:
    """Run a photographic recipe; the finished folder, or None when it stopped early as it was told to.

    Raises KeyboardInterrupt after Ctrl-C, with everything saved.
    """
    from dit_tools.jobs.atomic import write_error
    from dit_tools.jobs.interrupt import Interruptible
    from dit_tools.tasks.train import photo_run
    from dit_tools.tasks.train.training_run import Interrupted, TrainingRun, check_device

    options["device"] = check_device(options["device"])
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(run, error) from None
    if overwrite:
        for name in PHOTO_LEFT:
            (run / name).unlink(missing_ok=True)
        shutil.rmtree(run / photo_run.MODEL, ignore_errors=True)
    with Interruptible() as interrupts:
        session = TrainingRun(run, tell=tell, interrupts=interrupts, **options)
        try:
            return photo_run.run(recipe, session, data)
        except Interrupted:
            if interrupts.stop_requested:
                raise
            return None
