"""The root of the program: help, version, completion, how it can be started."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from dit_cli.main import COMMANDS
from dit_tools import __version__
from tests.support.program import dit, environment


def complete(words: str, at: int) -> list[str]:
    """What bash offers for the word number ``at`` of a command line."""
    env = {"COMP_WORDS": words, "COMP_CWORD": str(at), "_DIT_COMPLETE": "complete_bash"}
    done = dit(env=env)
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout.split()


def test_root_help_lists_every_command_and_each_exists() -> None:
    done = dit("--help")
    assert done.returncode == 0 and done.stderr == ""
    listed = done.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == list(COMMANDS)
    for name in COMMANDS:
        assert hasattr(importlib.import_module(f"dit_cli.{name}"), "command"), name


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns(name: str) -> None:
    done = dit(*[name] * bool(name), "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert f"Usage: dit {name}".rstrip() in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "--help" in done.stdout


def test_a_narrow_terminal_still_gets_help() -> None:
    done = dit("methods", "--help", env={"COLUMNS": "1"})
    assert done.returncode == 0 and "--bib" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_is_a_command_too() -> None:
    assert dit("help").stdout == dit("--help").stdout
    assert dit("help", "methods").stdout == dit("methods", "--help").stdout
    assert dit("help", "models", "pull").stdout == dit("models", "pull", "--help").stdout


def test_nothing_at_all_is_misuse_and_shows_help_on_stderr() -> None:
    done = dit()
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == dit("--help").stdout


def test_version() -> None:
    done = dit("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"dit {__version__}\n", "")


def test_it_runs_as_a_module() -> None:
    words = [sys.executable, "-m", "dit_cli.main", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout == f"dit {__version__}\n" and done.stderr == ""


def test_completion_of_commands_options_and_subcommands() -> None:
    assert complete("dit me", 1) == ["methods"]
    assert complete("dit methods --j", 2) == ["--json"]
    assert complete("dit models ", 2) == ["list", "show", "verify", "pull"]
    assert complete("dit models show emo", 3) == ["emoji", "emoji-small"]


def test_completion_of_methods() -> None:
    presets, methods = ["slow", "medium", "fast", "ultra"], complete("dit generate --cache ", 3)
    assert methods[:4] == presets and methods[4:] == sorted(methods[4:])
    assert "taylorseer" in methods
    assert complete("dit generate --cache tay", 3) == ["taylorseer"]
    assert complete("dit methods taylors", 2) == ["taylorseer"]
    assert "taylorseer:order=" in complete("dit generate --cache taylorseer:", 3)


def test_completion_is_installed(tmp_path: Path) -> None:
    # Shell detection would look at the processes above pytest; this names the shell instead.
    env = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = dit("--install-completion", "bash", env=env)
    assert done.returncode == 0 and done.stderr == ""
    assert "_DIT_COMPLETE=complete_bash" in (tmp_path / ".bash_completions/dit.sh").read_text()
    shown = dit("--show-completion", "zsh", env=env)
    assert shown.returncode == 0 and "#compdef dit" in shown.stdout
