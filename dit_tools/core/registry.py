"""A file is a method: the decorator that makes one, and the look-up by category and name.

``dit_tools/methods/caching/taylorseer.py`` *is* the choice ``--cache taylorseer``. Choices are listed from
the folder without importing them; a leading underscore marks a helper module. Third parties add
an entry point in the group ``dit.<category>``. ``-`` and ``_`` are the same in names; the hyphen is printed.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast, dataclass_transform

from dit_tools.core.errors import UsageError

T = TypeVar("T")

SAMPLING_CATEGORIES = {
    "schedules": "--schedule",
    "solvers": "--solver",
    "guidance": "--guidance",
    "noise": "--noise",
    "caching": "--cache",
    "sparse_attention": "--attention",
    "token_reduction": "--tokens",
    "highres": "--highres",
    "composition": "--combine",
}
"""Categories whose methods are chosen by an option of every sampling command."""

TASK_CATEGORIES = {
    "quantization": "--scheme",
    "formats": "--target",
    "metrics": "--metric",
    "objectives": "--objective",
    "adapters": "--adapter",
    "inversion": "--inversion",
    "editing": "--method",
    "codecs": "--method",
    "seed_search": "--steer",
    "protection": "--protect",
    "degradation": "--degrade",
    "restoration": "--method",
}
"""Categories whose methods are chosen by an option of one command; others take ``--method``."""

CATEGORIES = SAMPLING_CATEGORIES | TASK_CATEGORIES
"""All categories that list their methods, with their options."""

PACKAGES = {"formats": "dit_tools.tasks.quantize.formats"}
"""Categories that live elsewhere than in ``dit_tools.methods``: output formats are the engine's."""


@dataclass(frozen=True)
class MethodInfo:
    """What is known about a method without running it."""

    category: str
    name: str
    paper: str  # "arXiv:2503.06923", "doi:..." or empty for common knowledge
    title: str  # title of the paper, for citations
    year: int
    authors: str
    needs: frozenset[str]  # of "blocks", "stack", "gradients", "torch"; checked against what a network offers
    identity: Mapping[str, Any] | None  # parameters at which the method changes nothing

    @property
    def flag(self) -> str:
        """The option that takes this method, e.g. ``--cache``."""
        return flag_of(self.category)


def param(
    default: Any,
    help: str,  # noqa: A002
    *,
    ge: float | None = None,
    le: float | None = None,
    gt: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A parameter of a method: default, one line of help, bounds (``gt`` excludes), choices."""
    metadata = {"help": help, "ge": ge, "le": le, "gt": gt, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, field_specifiers=(param, field))
def method(
    *,
    paper: str = "",
    title: str = "",
    year: int = 0,
    authors: str = "",
    needs: frozenset[str] | set[str] = frozenset(),
    identity: Mapping[str, Any] | None = None,
) -> Callable[[type[T]], type[T]]:
    """Make a class the method of its file: a frozen dataclass with a ``MethodInfo`` as ``info``."""

    def decorate(cls: type[T]) -> type[T]:
        *_, category, name = cls.__module__.split(".")
        info = MethodInfo(category, display(name), paper, title, year, authors, frozenset(needs), identity)
        made = dataclass(frozen=True)(cls)
        made.info = info  # type: ignore[attr-defined]
        return made

    return decorate


def flag_of(category: str) -> str:
    """The option that takes a category's methods."""
    return CATEGORIES.get(category, "--method")


def package_of(category: str) -> str:
    """The package that holds a category's methods."""
    return PACKAGES.get(category, f"dit_tools.methods.{category}")


def display(name: str) -> str:
    """The printed form of a method's module name."""
    return name.replace("_", "-")


def names(category: str) -> list[str]:
    """Printed names of the category's own methods, sorted, without importing any."""
    spec = importlib.util.find_spec(package_of(category))
    if spec is None or spec.submodule_search_locations is None:
        return []
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return sorted(display(module.name) for module in found if not module.name.startswith("_"))


def presets(category: str) -> dict[str, str]:
    """Short words for specs of the category: what its ``PRESETS`` holds."""
    if importlib.util.find_spec(package_of(category)) is None:
        return {}
    return dict(getattr(importlib.import_module(package_of(category)), "PRESETS", {}))


def plugin_names(category: str) -> list[str]:
    """Printed names that installed packages add to the category."""
    return sorted(display(point.name) for point in _plugins(category))


def _plugins(category: str) -> Any:
    from importlib.metadata import entry_points  # takes 10 ms, and few commands need it

    return entry_points(group=f"dit.{category}")


def get(category: str, name: str) -> type[Any]:
    """The method class of that name. Raises UsageError with the nearest names."""
    if display(name) in names(category):
        return _class_in(importlib.import_module(f"{package_of(category)}.{name.replace('-', '_')}"))
    for point in _plugins(category):
        if display(point.name) == display(name):
            return point.load()
    flag = flag_of(category)
    known = [*names(category), *presets(category), *plugin_names(category)]
    raise UsageError(f"{flag}: no method {name!r}", nearest(display(name), known))


def _class_in(module: Any) -> type[Any]:
    members = cast(dict[str, Any], vars(module))
    for value in members.values():
        if isinstance(value, type) and value.__module__ == module.__name__:
            info = value.__dict__.get("info")
            if isinstance(info, MethodInfo):
                return value
    raise TypeError(f"{module.__name__} has no class decorated with @method")


def nearest(word: str, words: list[str]) -> str:
    """A remedy for a misspelt word: the nearest words, or all of them."""
    import difflib

    lower = {known.lower(): known for known in words}
    close = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=0.55)
    if close:
        return f"did you mean {lower[close[0]]!r}?"
    return f"choose from {', '.join(words)}"
