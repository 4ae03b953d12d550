"""The ``dit`` program: finds the command, runs it, and turns whatever happens into an exit code.

``dit --help`` imports Typer and nothing else. A command's module is imported when the command is
called, and it imports numpy, torch and models only after it has checked the request.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from dit_cli._app import PLAIN, Group
from dit_tools.core.errors import ExitCode
from dit_tools.jobs import interrupt

COMMANDS = {
    "generate": "Generate images from prompts.",
    "invert": "Find the noise from which a model reproduces an image.",
    "edit": "Edit images by prompt, mask or box, and keep the rest.",
    "superres": "Enlarge photographs.",
    "restore": "Remove noise and JPEG artifacts from photographs, and fill in what is missing.",
    "degrade": "Degrade photographs on purpose, for training pairs and benchmarks.",
    "compress": "Compress images to small .dit files.",
    "decompress": "Decode .dit files to images.",
    "info": "Show how an image was made.",
    "replay": "Make an image again from its own record.",
    "eval": "Compute metrics of images: PSNR, SSIM, retrieval and others.",
    "methods": "List, explain and cite every method.",
    "models": "List, show, verify and pull models.",
    "export": "Write ONNX graphs of a model, checked against PyTorch.",
    "calibrate": "Calibrate a cache for a model.",
    "train": "Train a model or an adapter from a recipe and captioned images.",
    "quantize": "Quantize a model and measure the loss of quality.",
}
"""Subcommand -> one line of help. The module of that name holds it as ``command``."""

HELP = """Command-line tools for diffusion transformers: files in, files out.

Results go to stdout, progress and errors to stderr. 'dit help COMMAND' explains a command."""


HELP_NAMES = {"help_option_names": ["-h", "--help"]}
"""Every subcommand inherits them."""


class LazyGroup(Group):
    """A group whose commands are imported when they are called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """``dit help`` and ``dit help COMMAND`` are ``--help``."""
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command. Typer's error names the nearest one when there is none."""
        name, stand_in, rest = super().resolve_command(ctx, args)
        if stand_in is None:  # a word that is still being completed
            return name, None, rest
        return name, importlib.import_module(f"dit_cli.{name}").command, rest


def _version(asked: bool) -> None:
    if asked:
        from dit_tools import __version__

        print(f"dit {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("-V", "--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


def root() -> LazyGroup:
    """The whole program as a Typer group, for ``main``, completion and the man pages."""
    app = typer.Typer(
        **PLAIN | {"add_completion": True, "context_settings": HELP_NAMES}, cls=LazyGroup, no_args_is_help=True
    )
    app.callback(help=HELP)(_root)
    made = typer.main.get_command(app)
    assert isinstance(made, LazyGroup)
    for name, line in COMMANDS.items():  # stand-ins, for lists and completion
        made.add_command(TyperCommand(name, help=line, rich_markup_mode=None))
    return made


def run(arguments: Sequence[str]) -> int:
    """Run a command line; errors pass through. Returns what the command returned, or 0."""
    if os.environ.get("DIT_CACHE"):  # where the hub's library looks, once it is imported
        os.environ["HF_HUB_CACHE"] = os.environ["DIT_CACHE"]
    program = root()
    if "_DIT_COMPLETE" in os.environ:
        program.main(list(arguments), prog_name="dit", complete_var="_DIT_COMPLETE")
    try:
        with program.make_context("dit", list(arguments)) as context:
            result = program.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    return int(result or 0) if isinstance(result, int) else 0


def main(arguments: Sequence[str] | None = None) -> None:
    """The installed program: runs the command line and exits with its code."""
    installed = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names come out as they are
    if installed:
        interrupt.arm()
    try:
        code = run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk or a closed pipe shows here
    except SystemExit:
        raise
    except BaseException as error:  # KeyboardInterrupt and Terminated, too
        if installed:
            interrupt.leave()
        code = _failed(error, arguments)
    if installed:
        interrupt.leave()
        if interrupt.ended() or code == ExitCode.INTERRUPTED:
            _end(interrupt.ended() or code)
    sys.exit(code)


def _end(code: int) -> None:
    """Leave without the interpreter's own way out: threads of ONNX Runtime may still be at work."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    interrupt.end_now(code)


def _failed(error: BaseException, arguments: Sequence[str]) -> int:
    from dit_cli._errors import failed

    before_end = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    named = bool(before_end) and before_end[0] in COMMANDS
    return failed(error, "--debug" in before_end, f"dit {before_end[0]}" if named else "dit")


if __name__ == "__main__":
    main()
