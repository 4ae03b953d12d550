"""The installed program in a subprocess, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("dit")
PLAIN = {"NO_COLOR": "1", "COLUMNS": "80", "HF_HUB_OFFLINE": "1", "TERM": "dumb"}


def dit(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``dit`` with these arguments and wait for it; stdout and stderr are text."""
    return _run([str(PROGRAM), *map(str, arguments)], env, cwd)


def python(
    code: str, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python code that imports the installed packages."""
    return _run([sys.executable, "-c", code, *arguments], env, cwd)


def dit_with(function: str, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``dit`` with one more command, ``boom``, made of the source of a function ``boom``."""
    code = f"""
import sys, types
from dit_cli import main
from dit_cli._app import command
{function}
sys.modules["dit_cli.boom"] = module = types.ModuleType("dit_cli.boom")
module.command = command(boom)
main.COMMANDS["boom"] = "Fail."
main.main(sys.argv[1:])
"""
    return python(code, *arguments, env=env)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would change the program's output."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DIT_", "_DIT", "HF_"))}
    return {**own, **PLAIN, **(more or {})}


def _run(words: list[str], env: Mapping[str, str] | None, cwd: Path | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
