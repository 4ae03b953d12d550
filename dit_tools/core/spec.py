"""Method specs on the command line: ``taylorseer:order=2,interval=5``.

The grammar is that of ffmpeg filters: ``NAME[:KEY=VALUE[,KEY=VALUE...]]``. A range is ``0.2..0.8``.
A field that ends in ``_`` is written without it (``class_`` is ``class``). ``parse`` and ``format``
are inverse to each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_type_hints

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
    def bounds(self) -> str:
        """Bounds in words, such as ``>= 1, <= 4``; empty without any."""
        pairs = ((">=", self.ge), (">", self.gt), ("<=", self.le))
        words = [f"{sign} {value:g}" for sign, value in pairs if value is not None]
        return ", ".join(words) or "|".join(self.choices)


def parameters(cls: type) -> Iterator[Parameter]:
    """The parameters of a method class, in the order of its fields."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        m = f.metadata
        default = None if f.default is MISSING else f.default
        yield Parameter(
            f.name.rstrip("_"), f.name, hints[f.name], default,
            m.get("help", ""), m.get("ge"), m.get("le"), m.get("gt"), m.get("choices", ()),
        )  # fmt: skip


def parse(room: str, text: str) -> Any:
    """The method instance that ``text`` asks for. Raises UsageError naming option and parameter."""
    name, _, rest = text.strip().partition(":")
    cls = registry.get(room, name)
    return build(cls, _pairs(cls, rest))


def build(cls: Any, pairs: dict[str, str]) -> Any:
    """An instance of a method class from texts. Raises UsageError on unknown or bad values."""
    where = f"{cls.info.flag} {cls.info.name}"
    known = {p.name: p for p in parameters(cls)}
    values = {}
    for key, text in pairs.items():
        parameter = known.get(key.replace("-", "_"))
        if parameter is None:
            hint = registry.nearest(key, list(known)) if known else "it takes none"
            raise UsageError(f"{where}: no parameter {key!r}", hint)
        values[parameter.field] = check(parameter, _value(parameter, text, where), where)
    return cls(**values)


def _pairs(cls: Any, rest: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = part.partition("=")
        where = f"{cls.info.flag} {cls.info.name}"
        if not equals:
            raise UsageError(f"{where}: {part!r} is not KEY=VALUE", _usage(cls))
        if key.strip() in pairs:
            raise UsageError(f"{where}: parameter {key.strip()!r} is given twice", "give it once")
        pairs[key.strip()] = value.strip()
    return pairs


def _usage(cls: Any) -> str:
    shown = ",".join(f"{p.name}={format_value(p.default)}" for p in parameters(cls))
    return f"for example {cls.info.name}:{shown}" if shown else "it takes no parameters"


def _value(parameter: Parameter, text: str, where: str) -> Any:
    kind = parameter.type
    try:
        if text == "none" and type(None) in getattr(kind, "__args__", ()):
            return None
        options = [k for k in getattr(kind, "__args__", (kind,)) if k is not type(None)]
        if kind == tuple[float, float]:
            low, dots, high = text.partition("..")
            return (float(low), float(high)) if dots else (float(text), float(text))
        if bool in options:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
        for number in (int, float):
            if number in options:
                return number(text)
    except (ValueError, KeyError):
        kind_name = getattr(kind, "__name__", str(kind))
        wanted = "a range such as 0.2..0.8" if kind == tuple[float, float] else kind_name
        raise UsageError(
            f"{where}: {parameter.name}={text!r} is not valid", f"give {wanted}"
        ) from None
    return text


def check(parameter: Parameter, value: Any, where: str) -> Any:
    """``value`` itself when it is within the parameter's bounds, else UsageError."""
    if isinstance(value, str) and parameter.choices and value not in parameter.choices:
        hint = registry.nearest(value, list(parameter.choices))
        raise UsageError(f"{where}: {parameter.name}={value!r} is not a choice", hint)
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        low = parameter.ge is not None and number < parameter.ge
        low = low or (parameter.gt is not None and number <= parameter.gt)
        if low or (parameter.le is not None and number > parameter.le) or math.isnan(number):
            shown = format_value(value)
            raise UsageError(
                f"{where}: {parameter.name}={shown} is out of range", f"give {parameter.bounds}"
            )
    return value


def format_value(value: Any) -> str:
    """A value as it is written in a spec."""
    if isinstance(value, tuple):
        return "..".join(format_value(item) for item in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def format(method: Any) -> str:  # noqa: A001
    """The spec of a method instance, with every parameter that is not at its default."""
    changed = [
        f"{p.name}={format_value(getattr(method, p.field))}"
        for p in parameters(type(method))
        if getattr(method, p.field) != p.default
    ]
    return method.info.name + (":" + ",".join(changed) if changed else "")


def describe(cls: Any) -> str:
    """Help text of a method: its docstring, parameters with defaults and bounds, and the paper."""
    import inspect

    lines = [inspect.cleandoc(cls.__doc__ or ""), ""]
    for p in parameters(cls):
        bounds = f" ({p.bounds})" if p.bounds else ""
        lines.append(f"  {p.name}={format_value(p.default)}{bounds}")
        lines.append(f"      {p.help}")
    if cls.info.paper:
        lines += ["", f"Paper: {cls.info.title} ({cls.info.paper})".replace(" ()", "")]
    return "\n".join(lines).strip() + "\n"
