"""A file is a method: the decorator that makes one, and the look-up by room and name.

``dit_tools/caching/taylorseer.py`` *is* the choice ``--cache taylorseer``. Choices are listed from
the folder without importing them; a leading underscore marks furniture. Third parties add an entry
point in the group ``dit.<room>``. ``-`` and ``_`` are the same in names; the hyphen is printed.
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

JOINTS = {
    "schedules": "--schedule",
    "solvers": "--solver",
    "guidance": "--guidance",
    "noise": "--noise",
    "caching": "--cache",
    "attention": "--attention",
    "tokens": "--tokens",
    "highres": "--highres",
    "combine": "--combine",
}
"""Rooms whose methods are chosen by an option of every sampling command."""

TASKS = {
    "weights.quantize": "--scheme",
    "weights.targets": "--target",
    "metrics": "--metric",
    "objectives": "--objective",
    "adapters": "--adapter",
    "inversion": "--inversion",
    "editing": "--method",
    "steering": "--steer",
    "protecting": "--protect",
}
"""Rooms whose methods are chosen by an option of one command; others take ``--method``."""

ROOMS = JOINTS | TASKS
"""All rooms that list their methods, with their options."""


@dataclass(frozen=True)
class MethodInfo:
    """What is known about a method without running it."""

    room: str
    name: str
    paper: str  # "arXiv:2503.06923", "doi:..." or empty for common knowledge
    title: str  # title of the paper, for citations
    year: int
    authors: str
    needs: frozenset[
        str
    ]  # of "blocks", "stack", "gradients", "torch"; checked against what a network offers
    identity: Mapping[str, Any] | None  # parameters at which the method changes nothing

    @property
    def flag(self) -> str:
        """The option that takes this method, e.g. ``--cache``."""
        return flag_of(self.room)


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
        *rooms, name = cls.__module__.split(".")
        room = ".".join(rooms[1:] if rooms[0] == "dit_tools" else rooms[-1:])
        info = MethodInfo(
            room, display(name), paper, title, year, authors, frozenset(needs), identity
        )
        made = dataclass(frozen=True)(cls)
        made.info = info  # type: ignore[attr-defined]
        return made

    return decorate


def flag_of(room: str) -> str:
    """The option that takes a room's methods."""
    return ROOMS.get(room, "--method")


def display(name: str) -> str:
    """The printed form of a method's module name."""
    return name.replace("_", "-")


def names(room: str) -> list[str]:
    """Printed names of the room's own methods, sorted, without importing any."""
    spec = importlib.util.find_spec(f"dit_tools.{room}")
    if spec is None or spec.submodule_search_locations is None:
        return []
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return sorted(display(module.name) for module in found if not module.name.startswith("_"))


def presets(room: str) -> dict[str, str]:
    """Short words for specs of the room: what its ``PRESETS`` holds."""
    if importlib.util.find_spec(f"dit_tools.{room}") is None:
        return {}
    return dict(getattr(importlib.import_module(f"dit_tools.{room}"), "PRESETS", {}))


def plugin_names(room: str) -> list[str]:
    """Printed names that installed packages add to the room."""
    return sorted(display(point.name) for point in _plugins(room))


def _plugins(room: str) -> Any:
    from importlib.metadata import entry_points  # takes 10 ms, and few commands need it

    return entry_points(group=f"dit.{room}")


def get(room: str, name: str) -> type[Any]:
    """The method class of that name. Raises UsageError with the nearest names."""
    if display(name) in names(room):
        return _class_in(importlib.import_module(f"dit_tools.{room}.{name.replace('-', '_')}"))
    for point in _plugins(room):
        if display(point.name) == display(name):
            return point.load()
    flag = flag_of(room)
    known = [*names(room), *presets(room), *plugin_names(room)]
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
