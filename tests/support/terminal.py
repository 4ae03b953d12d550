"""``dit generate`` with stderr on a pseudo-terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.program import PROGRAM, environment


def on_terminal(
    arguments: Sequence[str], cwd: Path, columns: int, env: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Exit code, stdout, and what was drawn on the terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        [PROGRAM, "generate", *arguments],
        cwd=cwd,
        env=environment(env),
        stderr=slave,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    stdout, _ = process.communicate(timeout=60)
    os.close(master)
    return process.returncode, stdout.decode(), shown.decode("utf-8", "replace")
