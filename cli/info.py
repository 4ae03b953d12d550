"""``dit info``: properties of images and the records embedded in them."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer

from dit_cli import _options as o
from dit_cli._app import command as make
from dit_tools.core.errors import ExitCode, InputError

Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Image files to describe.")]


def info(files: Files, json: o.Json = False) -> int:
    """Show how an image was made.

    Prints size, format, bit depth, alpha and colour profile, the parameters in the format of A1111
    and Civitai, and the dit record. Files that cannot be read are named on standard error and the
    others are still shown; the exit status is 4 when no file could be read, 3 when only some could.
    """
    from dit_cli._errors import say
    from dit_tools.tasks.info import SCHEMA, as_lines, inspect_file

    failures: list[InputError] = []
    for path in files:
        try:
            facts = inspect_file(path)
        except InputError as error:
            failures.append(error)
            if json:
                failed = {"schema": SCHEMA, "path": path, "error": str(error)}
                print(json_module.dumps(failed), flush=True)
            continue
        print(json_module.dumps(facts) if json else "\n".join(as_lines(facts)), flush=True)
    if len(files) == 1 and failures:
        raise failures[0]
    for error in failures:
        say(f"dit: {error}")
    if failures:
        return ExitCode.PARTIAL if len(failures) < len(files) else ExitCode.INPUT
    return ExitCode.OK


command = make(info)
