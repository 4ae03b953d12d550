"""The recipe of a network for photographs: a TOML file as frozen dataclasses and nothing else."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from dit_tools.core.errors import InputError
from dit_tools.core.registry import nearest
from dit_tools.methods import degradation

T = TypeVar("T")
TASKS = ("superres", "restore")


@dataclass(frozen=True)
class Archive:
    """A tar file of photographs below the data folder.

    ``share``: of the training patches, relative to the other archives. ``reduce``: every image is
    made smaller by this whole number first, which removes what its compression left.
    """

    archive: str
    share: float = 1.0
    reduce: int = 1


@dataclass(frozen=True)
class Network:
    """Sizes. ``width`` and ``scales`` are those of super-resolution, ``widths`` of restoration."""

    width: int = 64
    blocks: tuple[int, ...] = (8,)
    scales: tuple[int, ...] = (2, 3, 4)
    widths: tuple[int, ...] = (64, 128, 192)


@dataclass(frozen=True)
class Training:
    """Steps, batches and rates.

    ``patch`` is in pixels of the network's input. ``rescale``: the range of random reductions of
    the photographs, which makes them sharper. ``rescaled``: the share of patches so reduced.
    ``earlier``: steps at which a run of the recipe had ended before it was made longer; each part has its
    own warm-up and decay.
    ``scale_shares``: how often each scale is trained, in the order of ``scales``.
    """

    patch: int = 48
    batch_size: int = 16
    steps: int = 1000
    earlier: tuple[int, ...] = ()
    learning_rate: float = 1e-3
    muon_learning_rate: float = 1.5e-3
    warmup_steps: int = 50
    decay_fraction: float = 0.5
    ema_decay: float = 0.998
    rescale: tuple[float, ...] = (0.5, 1.0)
    rescaled: float = 0.5
    scale_shares: tuple[float, ...] = (0.3, 0.2, 0.5)


@dataclass(frozen=True)
class Mix:
    """One kind of damage of the blind restorer's inputs, and its share."""

    degrade: str
    share: float


@dataclass(frozen=True)
class PhotoRecipe:
    """A whole recipe; ``task`` is ``superres`` or ``restore``.

    ``title`` and ``licence`` are of the weights, for ``dit models``; ``int8``: whether graphs of that
    precision are exported as well.
    """

    name: str
    task: str
    seed: int
    data: tuple[Archive, ...]
    network: Network
    training: Training
    mix: tuple[Mix, ...] = ()
    title: str = ""
    licence: str = ""
    int8: bool = True


def is_photo(made: dict[str, Any]) -> bool:
    """Whether a recipe's contents describe a network of this kind."""
    return made.get("task") in TASKS


def load(path: Path) -> PhotoRecipe:
    """Read a recipe. Raises InputError for a missing, damaged or unknown part."""
    try:
        made = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", "give a recipe, a TOML file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}", "correct the file") from None
    return build(made, path)


def build(made: dict[str, Any], path: Path) -> PhotoRecipe:
    """The recipe of a file's contents. Raises InputError for an unknown or bad part."""
    known = [f.name for f in fields(PhotoRecipe)]
    for key in made:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}", nearest(key, known))
    if made.get("task") not in TASKS:
        raise InputError(f"{path}: task={made.get('task')!r}", f"use one of {', '.join(TASKS)}")
    data = tuple(_section(Archive, each, path) for each in made.get("data", ()))
    if not data:
        raise InputError(f"{path}: no [[data]]", "name at least one archive")
    recipe = PhotoRecipe(
        name=str(made.get("name", path.parent.name)),
        task=made["task"],
        seed=int(made.get("seed", 0)),
        data=data,
        network=_section(Network, made.get("network", {}), path),
        training=_section(Training, made.get("training", {}), path),
        mix=tuple(_section(Mix, each, path) for each in made.get("mix", ())),
        title=str(made.get("title", "")),
        licence=str(made.get("licence", "")),
        int8=bool(made.get("int8", True)),
    )
    _check(recipe, path)
    return recipe


def _section(kind: type[T], values: dict[str, Any], path: Path) -> T:
    hints = get_type_hints(kind)
    for key in values:
        if key not in hints:
            raise InputError(f"{path}: unknown key {key!r}", nearest(key, list(hints)))
    made = {key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()}  # fmt: skip
    try:
        return kind(**made)
    except TypeError as error:
        raise InputError(f"{path}: {error}", "add what is missing") from None


def _check(recipe: PhotoRecipe, path: Path) -> None:
    training, network = recipe.training, recipe.network
    ends = (*training.earlier, training.steps)
    if min(0, *ends) < 0 or list(ends) != sorted(set(ends)):
        raise InputError(f"{path}: earlier and steps do not rise", "give the ends of the parts in order")
    if min(training.steps, training.batch_size, training.patch) < 1:
        raise InputError(f"{path}: [training] has a number below 1", "correct it")
    if recipe.task == "superres" and len(training.scale_shares) != len(network.scales):
        raise InputError(f"{path}: scale_shares and scales differ in length", "one share a scale")
    if recipe.task == "restore":
        if not recipe.mix:
            raise InputError(f"{path}: no [[mix]]", "say what the network is to repair")
        for each in recipe.mix:
            degradation.parse(each.degrade)
        if training.patch % 2 ** len(network.widths):
            raise InputError(f"{path}: patch={training.patch}",
                             f"use a multiple of {2 ** len(network.widths)}")  # fmt: skip
