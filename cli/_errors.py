"""Turns any exception into one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from typing import Any

from dit_cli._foreign_options import remedy
from dit_tools.core.errors import DitError, ExitCode

MAX_LINE = 600  # characters of an error line: a prompt of megabytes is not repeated
OUT_OF_MEMORY = "use a smaller --batch-size or --size, --offload model, or --dtype bfloat16"
FULL = (errno.ENOSPC, errno.EDQUOT)


def failed(error: BaseException, debug: bool, path: str = "dit") -> int:
    """Report an error and return its exit code.

    ``debug`` adds the traceback; ``path`` names the command where the error does not.
    """
    if isinstance(error, OSError):
        _abandon_stdout()
    if isinstance(error, BrokenPipeError):
        return ExitCode.PIPE
    if debug:
        import traceback

        with contextlib.suppress(OSError, ValueError):
            traceback.print_exception(error)
    line, code = describe(error, path)
    if line:
        say(line)
    return code


def _abandon_stdout() -> None:
    """Send what stdout still holds to nowhere when it cannot be written.

    The interpreter flushes once more when it ends, and would complain.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe(error: BaseException, path: str = "dit") -> tuple[str, int]:
    """The line to print (empty for none) and the exit code."""
    import typer

    if isinstance(error, DitError):
        return f"dit: {error}", error.code
    if isinstance(error, typer.TyperException):
        return _usage(error, path)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "", ExitCode.INTERRUPTED
    if _terminated(error):
        return "", ExitCode.TERMINATED
    if _memory(error):
        return f"dit: out of memory; {OUT_OF_MEMORY}", ExitCode.MEMORY
    if isinstance(error, OSError) and error.errno in FULL:
        from dit_tools.jobs.atomic import write_error

        return f"dit: {write_error(error.filename or 'stdout', error)}", ExitCode.INPUT
    kind = type(error).__name__
    line = f"dit: internal error: {kind}: {error}; run again with --debug for the traceback"
    return line, ExitCode.FAILURE


def _usage(error: Any, path: str) -> tuple[str, int]:
    """A mistake that Typer found: what, and the nearest option or where to look."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else path
    if context and error.message == context.get_help():  # no argument at all: help is the answer
        return error.message, ExitCode.USAGE
    name, near = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    meant = remedy(name) if name and error.message.startswith("No such option") else None
    if meant:
        hint = meant
    elif near:
        hint = f"did you mean {near[0]!r}?"
    else:
        hint = _no_command(error.message) or f"see '{path} --help'"
    param = getattr(error, "param", None)
    if name and error.message.startswith("No such option"):
        message = f"No such option {name!r}"
    elif name or param is None or not error.message:
        message = error.format_message()
    else:
        message, hint = f"{_flag(param)}: {error.message}", "" if ";" in error.message else hint
    message = " ".join(message.split()).replace("Value error, ", "").rstrip(".")
    message, _, nearest = message.partition(". Did you mean ")
    if nearest:
        hint = f"did you mean {nearest}"
    return f"{path}: {message}" + (f"; {hint}" if hint else ""), ExitCode.USAGE


def _no_command(message: str) -> str | None:
    """What to do about a word that is no command but a prompt or a file; None: another message."""
    found = re.fullmatch(r"No such command '(.*)'\.?", message, re.S)
    if not found:
        return None
    word = found[1]
    if len(word) < 4096 and "\0" not in word and os.path.exists(word):
        return f"did you mean 'dit info {word}' or 'dit edit {word} PROMPT'?"
    return f"did you mean 'dit generate \"{word}\"'?" if " " in word.strip() else None


def _flag(param: Any) -> str:
    """How the user writes an option: its longest name; an argument's metavar."""
    return max(param.opts, key=len) if param.param_type_name == "option" else param.metavar


def _terminated(error: BaseException) -> bool:
    from dit_tools.jobs.interrupt import Terminated

    return isinstance(error, Terminated)


def _memory(error: BaseException) -> bool:
    """Whether numpy, torch or ONNX Runtime ran out of memory; none of them is imported here."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if {"MemoryError", "OutOfMemoryError"} & kinds:
        return True
    signs = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation", "Failed to allocate memory")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def say(line: str) -> None:
    """Print to stderr: one line without control characters unless it is a help text."""
    text = line if line.startswith("Usage: ") else _one_line(line)
    if sys.stderr is None:  # closed; print would take stdout instead
        return
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _one_line(line: str) -> str:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    if len(shown) <= MAX_LINE:
        return shown
    return f"{shown[: MAX_LINE // 2]} ... {shown[-MAX_LINE // 2 :]}"
