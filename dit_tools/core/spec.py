"""Method specs on the command line: ``taylorseer:order=2,interval=5``.

The grammar is that of ffmpeg filters: ``NAME[:KEY=VALUE[,KEY=VALUE...]]``. A range is ``0.2..0.8``.
A field that ends in ``_`` is written without it (``class_`` is ``class``). ``parse`` and ``format``
are inverse to each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, cast, get_args, get_type_hints

from dit_tools.core import registry
from dit_tools.core.errors import UsageError


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method, for help texts and checks."""

    name: str  # as written in a spec
    field: str
    type: Any
    default: Any
    help: str
    ge: float | None
    le: float | None
    gt: float | None
    choices: tuple[str, ...]

    @property
    def types(self) -> tuple[Any, ...]:
        """The type, or those of a union; ``type(None)`` where ``none`` may be written."""
        return get_args(self.type) if isinstance(self.type, UnionType) else (self.type,)

    @property
    def bounds(self) -> str:
        """Bounds in words, such as ``>= 1, <= 4``, or the choices; empty without any."""
        pairs = ((">=", self.ge), (">", self.gt), ("<=", self.le))
        words = [f"{sign} {value:g}" for sign, value in pairs if value is not None]
        truth = ("true", "false") if bool in self.types else ()
        return ", ".join(words) or "|".join(self.choices or truth)

    @property
    def wanted(self) -> str:
        """What to give, in words, such as ``a number >= 0``."""
        for kind, word in KIND_NAMES.items():
            if kind in self.types:
                return f"{word} {self.bounds}".strip() if kind is not bool else word
        return self.bounds or "a name"


RANGE = tuple[float, float]
KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", RANGE: "a range such as 0.2..0.8,"}
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parameters(cls: type) -> Iterator[Parameter]:
    """The parameters of a method class, in the order of its fields."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        m = f.metadata
        default = None if f.default is MISSING else f.default
        yield Parameter(
            f.name.rstrip("_"),
            f.name,
            hints[f.name],
            default,
            m.get("help", ""),
            m.get("ge"),
            m.get("le"),
            m.get("gt"),
            m.get("choices", ()),
        )


def parse(room: str, text: str) -> Any:
    """The method instance that ``text`` asks for, by its spec or by a preset of the category.

    Raises UsageError naming option and parameter.
    """
    text = registry.presets(room).get(text.strip(), text)
    name, _, rest = text.partition(":")
    cls = registry.get(room, name.strip())
    return build(cls, _pairs(cls, rest))


def build(cls: Any, pairs: dict[str, str]) -> Any:
    """An instance of a method class from texts. Raises UsageError on unknown or bad values."""
    where = f"{cls.info.flag} {cls.info.name}"
    known = {p.name: p for p in parameters(cls)}
    values = {}
    for key, text in pairs.items():
        parameter = known.get(key)
        if parameter is None:
            hint = registry.nearest(key, list(known)) if known else "it takes none"
            raise UsageError(f"{where}: no parameter {key!r}", hint)
        values[parameter.field] = check_value(parameter, _value(parameter, text, where), where)
    return cls(**values)


def _pairs(cls: Any, rest: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    where = f"{cls.info.flag} {cls.info.name}"
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"{where}: {part!r} is not KEY=VALUE", _usage(cls))
        if key in pairs:
            raise UsageError(f"{where}: parameter {key!r} is given twice", "give it once")
        pairs[key] = value.strip()
    return pairs


def _usage(cls: Any) -> str:
    shown = ",".join(f"{p.name}={format_value(p.default)}" for p in parameters(cls))
    return f"for example {cls.info.name}:{shown}" if shown else "it takes no parameters"


def _value(parameter: Parameter, text: str, where: str) -> Any:
    try:
        return _converted(parameter.types, text)
    except (ValueError, KeyError):
        raise UsageError(f"{where}: {parameter.name}={text!r} is not valid", f"give {parameter.wanted}") from None


def _converted(types: tuple[Any, ...], text: str) -> Any:
    """``text`` as the first of ``types`` that is not None. Raises ValueError or KeyError."""
    if text == "none" and type(None) in types:
        return None
    if RANGE in types:
        low, dots, high = text.partition("..")
        return (float(low), float(high)) if dots else (float(text), float(text))
    if bool in types:
        return TRUTH[text.lower()]
    for number in (int, float):
        if number in types:
            return number(text)
    if not text:
        raise ValueError("empty")
    return text


def check_value(parameter: Parameter, value: Any, where: str) -> Any:
    """``value`` itself when it is finite, in order and within bounds, else UsageError."""
    if isinstance(value, str) and parameter.choices and value not in parameter.choices:
        hint = registry.nearest(value, list(parameter.choices))
        raise UsageError(f"{where}: {parameter.name}={value!r} is not a choice", hint)
    ends = _items(value)
    rising = len(ends) < 2 or ends[0] <= ends[1]
    if not rising or not all(_inside(parameter, number) for number in ends):
        raise UsageError(f"{where}: {parameter.name}={format_value(value)} is out of range", f"give {parameter.wanted}")
    return value


def _items(value: Any) -> tuple[Any, ...]:
    return cast(tuple[Any, ...], value) if isinstance(value, tuple) else (value,)


def _inside(parameter: Parameter, number: Any) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return True
    return (
        (isinstance(number, int) or math.isfinite(number))
        and (parameter.ge is None or number >= parameter.ge)
        and (parameter.gt is None or number > parameter.gt)
        and (parameter.le is None or number <= parameter.le)
    )


def format_value(value: Any) -> str:
    """A value as it is written in a spec."""
    if isinstance(value, tuple):
        return "..".join(format_value(item) for item in _items(value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def format(method: Any) -> str:  # noqa: A001
    """The spec of a method instance, with every parameter that is not at its default."""
    changed = [
        f"{p.name}={format_value(getattr(method, p.field))}"
        for p in parameters(method.__class__)
        if getattr(method, p.field) != p.default
    ]
    return method.info.name + (":" + ",".join(changed) if changed else "")


def describe(cls: Any) -> str:
    """Help text of a method: its docstring, parameters with defaults and bounds, and the paper.

    At most 79 columns wide.
    """
    import inspect

    text = inspect.cleandoc(cls.__doc__ or "").replace("``", "")
    lines = [line for part in text.split("\n\n") for line in (*_wrapped(part), "")]
    for p in parameters(cls):
        bounds = f" ({p.bounds})" if p.bounds else ""
        lines += _wrapped(f"{p.name}={format_value(p.default)}{bounds}", "  ")
        lines += _wrapped(p.help, "      ")
    if cls.info.paper:
        cited = ", ".join(filter(None, (cls.info.title, cls.info.paper, str(cls.info.year))))
        lines += ["", *_wrapped(f"Paper: {cited}")]
    return "\n".join(lines).strip() + "\n"


def _wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(text, 79, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
