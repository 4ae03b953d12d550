"""The man pages in ``man/`` and ``docs/methods.md``, written from the same objects as ``--help``.

``python -m dit_cli.manpages`` writes them; ``--check`` compares, shows the difference and exits
with 1 where there is one. The text depends on nothing but the code: no date, no terminal size, no
installed plugins.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dit_cli._app import about
from dit_cli.main import COMMANDS, HELP, root
from dit_cli.reference import page as methods_page
from dit_cli.roff import bold, escape, paragraphs, prose
from dit_tools import __version__
from dit_tools.core import registry, spec
from dit_tools.core.errors import ExitCode

FOLDER = Path(__file__).resolve().parent.parent / "man"
METHODS_PAGE = FOLDER.parent / "docs" / "methods.md"

EXIT_STATUS = {
    ExitCode.OK: "Everything was done.",
    ExitCode.FAILURE: "A bug in dit; --debug shows the traceback. Please report it.",
    ExitCode.USAGE: "An unknown option, method, parameter or value.",
    ExitCode.PARTIAL: "The batch was finished but some items failed; they are listed on standard error.",
    ExitCode.INPUT: "An input cannot be read, an output cannot be written, or nothing matched.",
    ExitCode.MODEL: "A model is missing, gated or damaged, or its output is NaN or infinite.",
    ExitCode.MEMORY: "Out of memory.",
    ExitCode.UNSUPPORTED: "The hardware, precision or combination of options is not supported.",
    ExitCode.INTERRUPTED: "Interrupted with Ctrl-C.",
    ExitCode.PIPE: "The reader of standard output closed the pipe; nothing is printed.",
    ExitCode.TERMINATED: "Stopped by SIGTERM or SIGHUP.",
}
ENVIRONMENT = {
    "DIT_CACHE": "Folder for models from the hub; replaces HF_HUB_CACHE.",
    "HF_HOME": "Folder of the hub's cache and token (default: ~/.cache/huggingface).",
    "HF_HUB_CACHE": "Folder for models from the hub (default: $HF_HOME/hub).",
    "HF_TOKEN": "Token for private and gated models.",
    "HF_HUB_OFFLINE": "If 1, the network is not used.",
    "NO_COLOR": "If set, the terminal output has no colours.",
}
EXAMPLES = {
    "Generate an image": 'dit generate "a red apple" -o apple.png',
    "Show how it was made": "dit info apple.png",
    "Explain a method": "dit methods taylorseer",
    "List the methods of an option": "dit generate --cache help",
    "Complete options and methods with the tab key": "dit --install-completion",
}


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    program = root()
    context = program.make_context("dit", [], resilient_parsing=True)
    made = {"dit.1": _root_page(program, context)}
    for name in COMMANDS:
        _, command, _ = program.resolve_command(context, [name])
        made[f"dit-{name}.1"] = _page(name, command, context)
    return made


def _root_page(program: Any, context: Any) -> str:
    lines = [
        *_head("dit", HELP.partition("\n")[0]),
        ".SH SYNOPSIS",
        f"{bold('dit')} [{bold('--version')}] [{bold('--help')}]",
        ".br",
        f"{bold('dit')} \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        *paragraphs(HELP),
        ".SH COMMANDS",
        *_table((f"dit-{name}(1)", line) for name, line in COMMANDS.items()),
        ".SH OPTIONS",
        *_options(program, context),
        ".SH EXIT STATUS",
        *_table((str(int(c)), EXIT_STATUS[c]) for c in sorted(ExitCode)),
        ".SH ENVIRONMENT",
        *_table(ENVIRONMENT.items()),
        ".SH EXAMPLES",
        *(
            line
            for title, code in EXAMPLES.items()
            for line in (".PP", prose(f"{title}:"), ".PP", ".RS 4", prose(code), ".RE")
        ),
        ".SH SEE ALSO",
        _see_also("dit"),
    ]
    return "\n".join(lines) + "\n"


def _page(name: str, command: Any, context: Any) -> str:
    text = inspect.cleandoc(command.help or "")
    lines = _head(f"dit-{name}", COMMANDS[name])
    inner = command.make_context(name, [], parent=context, resilient_parsing=True)
    subcommands = getattr(command, "commands", {})
    if subcommands:
        lines += [".SH SYNOPSIS"]
        for index, (word, sub) in enumerate(subcommands.items()):
            lines += [".br"] * bool(index) + [_synopsis(f"dit {name} {word}", sub, inner)]
        lines += [".SH DESCRIPTION", *paragraphs(text), ".SH SUBCOMMANDS"]
        for word, sub in subcommands.items():
            lines += [f".SS {escape(f'dit {name} {word}')}", *paragraphs(sub.help or "")]
            below = sub.make_context(word, [], parent=inner, resilient_parsing=True)
            lines += _options(sub, below, headings=False)
    else:
        lines += [".SH SYNOPSIS", _synopsis(f"dit {name}", command, inner)]
        lines += [".SH DESCRIPTION", *paragraphs(text), ".SH OPTIONS", *_options(command, inner)]
    lines += _methods(command, everything=name == "methods")
    lines += [
        ".SH EXIT STATUS",
        prose("As in dit(1): 0 when everything was done, 2 for misuse."),
        ".SH SEE ALSO",
        _see_also(f"dit-{name}"),
    ]
    return "\n".join(lines) + "\n"


def _head(name: str, line: str) -> list[str]:
    summary = escape(line[0].lower() + line[1:].rstrip("."))
    return [
        '.\\" Written by python -m dit_cli.manpages; do not edit.',
        f'.TH {escape(name.upper())} 1 "" "dit {__version__}" "dit manual"',
        # No hyphenation and no filling to both margins: options stay whole.
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{escape(name)} \\- {summary}",
    ]


def _synopsis(path: str, command: Any, context: Any) -> str:
    words = [bold(path), "[\\fIOPTIONS\\fR]"]
    for param in command.get_params(context):
        if param.param_type_name == "argument":
            name = f"\\fI{escape(param.metavar or param.name.upper())}\\fR"
            name += "..." if param.nargs == -1 else ""
            words.append(name if param.required else f"[{name}]")
    return " ".join(words)


def _options(command: Any, context: Any, headings: bool = True) -> list[str]:
    """Every parameter under its heading, as ``--help`` has them."""
    sections: dict[str, list[str]] = {}
    for param in command.get_params(context):
        if param.hidden:
            continue
        argument = param.param_type_name == "argument"
        title = param.rich_help_panel or ("Arguments" if argument else "General")
        sections.setdefault(title, []).extend([".TP", _term(param), prose(about(param))])
    if len(sections) == 1 or not headings:
        return [line for lines in sections.values() for line in lines]
    general = sections.pop("General", None)
    ordered = [*sections.items(), *([("General", general)] if general else [])]
    return [line for title, lines in ordered for line in (f".SS {escape(title)}", *lines)]


def _term(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"\\fI{escape(param.metavar or param.name.upper())}\\fR"
    words = {int: "N", float: "X"}
    metavar = param.metavar or words.get(param.type_descriptor.annotation, "TEXT")
    names = ", ".join(bold(name) for name in sorted(param.opts, key=len))
    flag = param.is_flag or getattr(param, "count", False)
    return names if flag else f"{names} \\fI{escape(metavar)}\\fR"


def _methods(command: Any, everything: bool) -> list[str]:
    """The methods of every option of the command; in full for dit methods."""
    flags = {name for param in command.params for name in param.opts}
    categories = [category for category, flag in registry.CATEGORIES.items() if everything or flag in flags]
    lines = [".SH METHODS"] if categories else []
    for category in categories:
        lines.append(f".SS {escape(f'{registry.CATEGORIES[category]} ({category})')}")
        for name in registry.names(category):
            cls = registry.get(category, name)
            lines += [".TP", bold(name), *(_full(cls) if everything else _brief(cls))]
    return lines


def _brief(cls: Any) -> Iterator[str]:
    text = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0]
    yield prose(text)
    shown = [f"{p.name}={spec.format_value(p.default)}" for p in spec.parameters(cls)]
    if shown:
        yield ".br"
        yield prose("Parameters: " + ", ".join(shown))


def _full(cls: Any) -> Iterator[str]:
    for index, part in enumerate(inspect.cleandoc(cls.__doc__ or "").split("\n\n")):
        yield from ([".IP"] if index else [])
        yield prose(part)
    parameters = list(spec.parameters(cls))
    if parameters:
        yield ".RS"
        for p in parameters:
            bounds = f" ({p.bounds})" if p.bounds else ""
            yield from (".TP", bold(f"{p.name}={spec.format_value(p.default)}") + escape(bounds))
            yield prose(p.help)
        yield ".RE"
    if cls.info.paper:
        yield from (".IP", prose(f"Paper: {cls.info.title}, {cls.info.paper}."))


def _table(rows: Any) -> Iterator[str]:
    for term, text in rows:
        yield from (".TP", bold(term), prose(text))


def _see_also(page: str) -> str:
    others = ["dit", *(f"dit-{name}" for name in COMMANDS)]
    return ", ".join(f"{bold(other)}(1)" for other in others if other != page)


def write(folder: Path) -> list[Path]:
    """Write every page into the folder, remove others that this module wrote; returns the paths."""
    made = pages()
    folder.mkdir(exist_ok=True)
    for path in folder.glob("dit*.1"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in made]


def difference(folder: Path) -> str:
    """A unified diff from the folder's pages to what they should be; empty when they are."""
    wanted = pages()
    lines: list[str] = []
    for name in sorted({*wanted, *(path.name for path in folder.glob("dit*.1"))}):
        path = folder / name
        now = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines += difflib.unified_diff(
            now.splitlines(True), wanted.get(name, "").splitlines(True), f"man/{name}", "code"
        )
    return "".join(lines)


def main(arguments: Sequence[str]) -> int:
    """``[--check] [FOLDER]``; returns the exit code. Without a folder, ``docs/methods.md`` belongs to it too."""
    check = "--check" in arguments
    folders = [Path(word) for word in arguments if not word.startswith("-")]
    folder, methods = (folders[0], None) if folders else (FOLDER, METHODS_PAGE)
    if not check:
        write(folder)
        if methods:
            methods.write_text(methods_page(), encoding="utf-8")
        return 0
    found = difference(folder)
    if methods and (not methods.is_file() or methods.read_text(encoding="utf-8") != methods_page()):
        found += "docs/methods.md differs\n"
    sys.stdout.write(found)
    if found:
        print("man pages or docs/methods.md are stale; run python -m dit_cli.manpages", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
