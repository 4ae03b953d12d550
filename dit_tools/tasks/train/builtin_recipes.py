"""The recipes that come with dit: those of the built-in models, next to their weights."""

from __future__ import annotations

from pathlib import Path

from dit_tools.core.errors import InputError
from dit_tools.core.registry import nearest
from dit_tools.models.loading.resolve import BUILTIN


def paths(root: Path = BUILTIN) -> dict[str, Path]:
    """Name -> file. ``emoji/recipe.toml`` is ``emoji``, ``emoji/recipe-colour.toml`` is ``emoji-colour``."""
    found = {path.parent.name + path.stem.removeprefix("recipe"): path for path in root.glob("*/recipe*.toml")}
    return dict(sorted(found.items()))


def find(text: str) -> Path:
    """The file of a recipe that was named, or the path as it is. Raises InputError for an unknown name."""
    known = paths()
    if text in known:
        return known[text]
    path = Path(text)
    if path.suffix == ".toml" or len(path.parts) > 1 or path.exists():
        return path
    raise InputError(f"{text}: no recipe of this name", nearest(text, list(known)) or f"choose from {', '.join(known)}")
