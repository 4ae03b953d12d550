"""``--sweep KEY=A,B,C``: the same image with several values of an option."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dit_tools.core.errors import UsageError
from dit_tools.jobs.options import find_option, read_values
from dit_tools.jobs.seeds import parse_seeds

MAX_VALUES = 1000
TEXTS = ("negative_prompt", "model", "lora", "second_model", "second_prompt")
"""Options whose values may hold commas of their own: their values are parted by ``|`` alone."""


@dataclass(frozen=True)
class Axis:
    """One swept option: its name as the user wrote it, values as read, a label for each."""

    key: str
    option: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    def label(self, index: int) -> str:
        """The label of a value on a sheet, such as ``cfg 3``."""
        return f"{self.key} {self.labels[index]}"


@dataclass(frozen=True)
class Point:
    """One combination: options to lay over an image's settings, and its place on every axis."""

    options: dict[str, Any]
    place: tuple[int, ...]


def parse_axis(text: str) -> Axis:
    """Read ``cfg=3,5,7``, ``cache=none,taylorseer:order=1,interval=3`` or ``negative=a|b``.

    A piece such as ``interval=3`` goes on with the method before it. Seeds may be ranges. Raises
    UsageError naming the option.
    """
    key, equals, rest = text.partition("=")
    where = f"--sweep {text[:60]}"
    if not equals or not rest.strip():
        raise UsageError(f"{where}: not KEY=VALUE,VALUE", "for example --sweep cfg=3,5,7")
    option = find_option(key, where).name
    if option in ("num_images", "format"):
        raise UsageError(f"{where}: {key.strip()} cannot be swept", "give it as an option")
    pieces = _pieces(option, rest)
    if len(pieces) > MAX_VALUES:
        raise UsageError(f"{where}: over {MAX_VALUES} values", "give fewer")
    read = [read_values({option: piece}, where) for piece in pieces]
    if len({str(value) for value in read}) < len(read):
        raise UsageError(f"{where}: a value is given twice", "give it once")
    values = tuple((v["width"], v["height"]) if option == "size" else v[option] for v in read)
    return Axis(key.strip().lstrip("-"), option, values, tuple(pieces))


def _pieces(option: str, text: str) -> list[str]:
    if "|" in text or option in TEXTS:
        return [piece.strip() for piece in text.split("|")]
    parts = [piece.strip() for piece in text.split(",")]
    if option == "seed":
        return [str(seed) for part in parts for seed in parse_seeds(part)]
    pieces: list[str] = []
    for part in parts:
        goes_on = "=" in part and ":" not in part.partition("=")[0]
        if goes_on and pieces:
            pieces[-1] += f",{part}"
        else:
            pieces.append(part)
    return pieces


def parse_axes(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Every axis of a sweep. Raises UsageError for an option that is swept twice."""
    axes = tuple(parse_axis(text) for text in texts)
    options = [axis.option for axis in axes]
    for option in options:
        clash = {"size": ("width", "height")}.get(option, ())
        if options.count(option) > 1 or any(other in options for other in clash):
            raise UsageError(f"--sweep: {option} is swept twice", "name each option once")
    return axes


def points(axes: Sequence[Axis]) -> Iterator[Point]:
    """The product of the axes, the last one changing fastest; one empty point without axes."""
    for place in itertools.product(*(range(len(axis.values)) for axis in axes)):
        options: dict[str, Any] = {}
        for axis, index in zip(axes, place, strict=True):
            value = axis.values[index]
            if axis.option == "size":
                options |= {"width": value[0], "height": value[1]}
            else:
                options[axis.option] = value
        yield Point(options, place)
