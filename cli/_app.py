"""From a function with annotated options to a command, without the slow parts of Typer.

Typer converts values with pydantic, whose import takes longer than everything else that ``dit``
does before it knows what is wanted. ``Text`` converts the few types used here instead. Rich boxes
around help cost as much again, so help is plain.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from dit_cli._options import IMAGE, METHODS, PANELS

PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Text:
    """Reads the value of an option that is a str, int, float, bool or a list of them."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the option's type. Raises typer.BadParameter, which is exit code 2."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        kind = _item(param.type_descriptor.annotation)
        if several:
            return [_read(item, kind, param, ctx) for item in value]
        return _read(value, kind, param, ctx)


def _item(annotation: Any) -> Any:
    """``list[int]`` is read as many ``int``."""
    return get_args(annotation)[0] if get_origin(annotation) is list else annotation


def _read(value: Any, kind: Any, param: Any, ctx: Any) -> Any:
    try:
        read = BOOLS[value.lower()] if kind is bool and isinstance(value, str) else kind(value)
    except (ValueError, KeyError, OverflowError):
        raise typer.BadParameter(f"not {KINDS[kind]}", ctx=ctx, param=param) from None
    low, high = param.min, param.max
    above = low is None or read >= low
    if kind in (int, float) and not (above and (high is None or read <= high)):  # NaN too
        ends = (("at least", low), ("at most", high))
        wanted = " and ".join(f"{word} {end:g}" for word, end in ends if end is not None)
        raise typer.BadParameter(f"out of range; give {wanted}", ctx=ctx, param=param)
    return read


def quick(params: Sequence[Any]) -> list[Any]:
    """The parameters, converting their values without pydantic where ``Text`` can."""
    for param in params:
        if _item(param.type_descriptor.annotation) in KINDS:
            param._runtime_param = Text()  # where Typer keeps its converter once it is built
    return list(params)


def grouped_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Write a command's options under the headings that ``rich_help_panel`` names."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            record = re.sub(r" <[^>]*>$", "", record[0]), about(param)  # an argument's type says nothing here
            kind = "Arguments" if param.param_type_name == "argument" else "Options"
            sections.setdefault(param.rich_help_panel or kind, []).append(record)
    last = sections.pop("Options", None)
    for title, records in (*sections.items(), *([("Options", last)] if last else [])):
        with formatter.section(title):
            formatter.write_dl(records)


def about(param: Any) -> str:
    """The help of a parameter as one sentence, with its default and bounds in parentheses."""
    text = (param.help or "").removesuffix(".")
    facts = []
    switch = param.param_type_name == "option" and (param.is_flag or param.count)
    if param.default not in (None, 0, "", [], ()) and param.show_default and not switch:
        facts.append(f"default: {param.default:g}" if isinstance(param.default, float) else f"default: {param.default}")
    elif param.default is True:
        facts.append("default: on")
    ends = (("at least", getattr(param, "min", None)), ("at most", getattr(param, "max", None)))
    facts += [f"{words} {end:g}" for words, end in ends if end]
    if text.endswith(")") and facts:
        return f"{text[:-1]}; {'; '.join(facts)})."
    return f"{text} ({'; '.join(facts)})." if facts else f"{text}." if text else ""


class Command(TyperCommand):
    """A command with ``--debug``, quick conversions and options grouped by heading."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Own options, then those that every command has."""
        params = super().get_params(ctx)
        debug = _common()
        own = sorted(params[:-1], key=_place)
        return quick([*own, *(p for p in debug if p not in params), *params[-1:]])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Plain help, one section a heading."""
        grouped_options(self, ctx, formatter)


def _place(param: Any) -> int:
    """Arguments first, then options in the order of their headings."""
    panel = getattr(param, "rich_help_panel", None)
    if param.param_type_name == "argument":
        return -1
    return PANELS.index(panel) if panel in PANELS else len(PANELS)


class Group(TyperGroup):
    """A command with subcommands. ``default`` is the one meant when none is named."""

    default = ""

    def get_params(self, ctx: Any) -> list[Any]:
        """As Typer, with quick conversions."""
        return quick(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default subcommand in front of options, or in place of nothing."""
        option = bool(args) and args[0].startswith("-") and args[0] not in ("-h", "--help")
        if self.default and not ctx.resilient_parsing and (option or not args):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


_shared: list[Any] = []


def _common() -> list[Any]:
    """Options of every command, made once."""

    def options(
        debug: Annotated[
            bool, typer.Option("--debug", help="Show the traceback of an error.", expose_value=False)
        ] = False,
    ) -> None:
        pass

    if not _shared:
        app = typer.Typer(**PLAIN)
        app.command()(options)
        _shared.extend(typer.main.get_command(app).params)
    return _shared


def command(function: Callable[..., Any], block: type[Any] | None = None) -> Command:
    """The command of a function whose parameters are annotated options and arguments.

    With a ``block``, a TypedDict of ``dit_cli._option_groups``, its ``**`` parameter stands for the options
    of that, whose defaults are None, or False for a switch. In help they follow the command's own
    of images and methods, and precede its others.
    """
    app = typer.Typer(**PLAIN)
    app.command(cls=Command)(_spelled_out(function, block) if block else function)
    made = typer.main.get_command(app)
    assert isinstance(made, Command)
    return made


def _spelled_out(function: Callable[..., Any], block: type[Any]) -> Callable[..., Any]:
    """The function with a signature that names what its ``**`` parameter holds."""
    signature = inspect.signature(function, eval_str=True)
    *named, last = signature.parameters.values()
    assert last.kind is last.VAR_KEYWORD
    made = [
        inspect.Parameter(
            name, last.KEYWORD_ONLY, annotation=hint, default=False if get_args(hint)[0] is bool else None
        )
        for name, hint in get_type_hints(block, include_extras=True).items()
    ]
    kinds = {p.name: get_args(p.annotation)[1] for p in named}
    early = [p for p in named if kinds[p.name].rich_help_panel in (None, IMAGE, METHODS)]
    late = [p.replace(kind=p.KEYWORD_ONLY) for p in named if p not in early]
    parameters = [*early, *made, *late]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def group(main: Callable[..., Any], functions: Mapping[str, Callable[..., Any]], default: str = "") -> Group:
    """A command with subcommands; ``main`` gives the help text."""
    app = typer.Typer(**PLAIN, cls=Group, no_args_is_help=not default)
    app.callback()(main)
    for name, function in functions.items():
        app.command(name, cls=Command)(function)
    made = typer.main.get_command(app)
    assert isinstance(made, Group)
    made.default = default
    return made
