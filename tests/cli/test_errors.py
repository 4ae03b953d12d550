"""Every failure is one line on stderr and the documented exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.program import PROGRAM, dit, dit_with, environment

USAGE = {
    ("mehtods",): "dit: No such command 'mehtods'; did you mean 'methods', 'models'?",
    ("xyzzy",): "dit: No such command 'xyzzy'; see 'dit --help'",
    ("--xyzzy",): "dit: No such option '--xyzzy'; see 'dit --help'",
    ("methods", "--bibb"): "dit methods: No such option '--bibb'; did you mean '--bib'?",
    ("methods", "-z"): "dit methods: No such option '-z'; see 'dit methods --help'",
    ("models", "shw"): "dit models: No such command 'shw'; did you mean 'show'?",
    ("models", "show"): "dit models show: Missing argument 'NAME'; see 'dit models show --help'",
    ("models", "show", "a", "b"): "dit models show: Got unexpected extra argument(s) (b); see 'dit models show --help'",
    ("generate", "x", "--stpes", "3"): "dit generate: No such option '--stpes'; did you mean '--steps'?",
    ("generate", "--cache"): "dit generate: Option '--cache' requires an argument; see 'dit generate --help'",
    ("generate", "x", "--batch-size", "two"): "dit generate: --batch-size: not a whole number; "
    "see 'dit generate --help'",
    ("generate", "x", "--batch-size", "0"): "dit generate: --batch-size: out of range; give at least 1",
    ("generate", "x", "--cache", "taylorser"): "dit: --cache: no method 'taylorser'; did you mean 'taylorseer'?",
    ("generate", "x", "--cache", "taylorseer:odrer=1"): "dit: --cache taylorseer: "
    "no parameter 'odrer'; did you mean 'order'?",
}


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_usage(arguments: tuple[str, ...]) -> None:
    done = dit(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == USAGE[arguments] + "\n"


def raising(what: str) -> str:
    """The source of a command that raises."""
    return f"def boom() -> None:\n    'Fail.'\n    {what}"


RAISED = {
    "raise ValueError('odd')": (1, "dit: internal error: ValueError: odd; run again with --debug for the traceback"),
    "from dit_tools.core.errors import ModelError; raise ModelError('m', 'h')": (5, "dit: m; h"),
    "from dit_tools.core.errors import UnsupportedError; raise UnsupportedError('no')": (7, "dit: no"),
    "raise MemoryError": (
        6,
        "dit: out of memory; use a smaller --batch-size or --size, --offload model, or --dtype bfloat16",
    ),
    "raise type('OutOfMemoryError', (RuntimeError,), {})('CUDA')": (
        6,
        "dit: out of memory; use a smaller --batch-size or --size, --offload model, or --dtype bfloat16",
    ),
    "raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: 8 bytes')": (
        6,
        "dit: out of memory; use a smaller --batch-size or --size, --offload model, or --dtype bfloat16",
    ),
    "import errno; raise OSError(errno.ENOSPC, 'full', 'a.png')": (
        4,
        "dit: a.png: cannot be written: the disk is full; free some space, or write elsewhere with -o",
    ),
    "raise BrokenPipeError": (141, ""),
    "raise KeyboardInterrupt": (130, ""),
    "from dit_tools.jobs.interrupt import Terminated; raise Terminated": (143, ""),
    "import typer; raise typer.Exit(3)": (3, ""),
    "return 7": (7, ""),
    "raise ValueError('two\\nlines\\x1b[31m')": (
        1,
        "dit: internal error: ValueError: "
        "two\N{REPLACEMENT CHARACTER}lines\N{REPLACEMENT CHARACTER}[31m; "
        "run again with --debug for the traceback",
    ),
}


@pytest.mark.parametrize("what", RAISED)
def test_errors_in_a_command(what: str) -> None:
    done = dit_with(raising(what), "boom")
    code, line = RAISED[what]
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == (line + "\n" if line else "")


def test_a_long_error_line_is_cut() -> None:
    done = dit_with(raising("raise ValueError('x' * 1_000_000)"), "boom")
    assert done.returncode == 1 and len(done.stderr) < 1000 and "--debug" in done.stderr


@pytest.mark.parametrize("arguments", [("--debug", "boom"), ("boom", "--debug")], ids=" ".join)
def test_debug_shows_the_traceback_anywhere(arguments: tuple[str, ...]) -> None:
    done = dit_with(raising("raise ValueError('odd')"), *arguments)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr and "ValueError: odd" in done.stderr


def test_debug_after_two_dashes_is_text() -> None:
    source = "def boom(words: list[str]) -> None:\n    'Fail.'\n    raise ValueError(words)"
    done = dit_with(source, "boom", "--", "--debug")
    assert "Traceback" not in done.stderr and "['--debug']" in done.stderr


def test_values_are_converted() -> None:
    source = """
from typing import Annotated
import typer
def boom(
    words: Annotated[list[str], typer.Argument()],
    whole: Annotated[int, typer.Option()] = 1,
    real: Annotated[float, typer.Option(min=0, max=1)] = 0.5,
    many: Annotated[list[int] | None, typer.Option()] = None,
    flag: Annotated[bool | None, typer.Option("--flag")] = None,
    loud: Annotated[int, typer.Option("-v", count=True)] = 0,
) -> None:
    'Print.'
    print(words, whole, real, many, flag, loud, 'pydantic' in sys.modules)
"""
    done = dit_with(source, "boom", "a", "b", "--whole", "7", "--many", "1", "--many", "2", "-vv")
    assert done.stdout == "['a', 'b'] 7 0.5 [1, 2] None 2 False\n"
    for value in ("nan", "-1", "1.5"):
        done = dit_with(source, "boom", "a", f"--real={value}")
        line = "dit boom: --real: out of range; give at least 0 and at most 1\n"
        assert (done.returncode, done.stderr) == (2, line)


def test_a_full_disk_under_stdout() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([PROGRAM, "methods"], stdout=full, stderr=subprocess.PIPE, text=True, env=environment())
    assert done.returncode == 4
    assert done.stderr.startswith("dit: stdout: cannot be written: the disk is full")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_went_away() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([PROGRAM, "methods"], stdout=writing, stderr=subprocess.PIPE, text=True, env=environment())
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_closed_standard_streams() -> None:
    words = f"{PROGRAM} methods >&- ; echo $?; {PROGRAM} xyzzy 2>&-; echo $?"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, env=environment())
    assert done.stdout.split() == ["0", "2"] and done.stderr == ""


def test_ctrl_c_in_a_running_command() -> None:
    code = (
        "import sys, types; from dit_cli import main; from dit_cli._app import command\n"
        "def boom() -> None:\n"
        "    import time; print('ready', flush=True); time.sleep(60)\n"
        "sys.modules['dit_cli.boom'] = m = types.ModuleType('m'); m.command = command(boom)\n"
        "main.COMMANDS['boom'] = 'x'; main.main(['boom'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")


def test_ctrl_c_after_the_work_is_done_ends_without_a_traceback() -> None:
    code = (
        "import os, signal, sys, threading; from dit_cli import main\n"
        "def late() -> None:\n"  # threads are waited for when the program has ended
        "    threading.main_thread().join(); os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=late).start()\n"
        "sys.argv = ['dit', '--version']; main.main()"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, env=environment())
    assert (made.returncode, made.stderr) == (0, "") and made.stdout.startswith("dit ")
