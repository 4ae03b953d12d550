"""Ctrl-C once finishes the current item, twice stops now; SIGTERM and SIGHUP stop now and clean up.

A signal that the process was told to ignore stays ignored: SIGHUP under ``nohup``, SIGINT in a job
that a script starts with ``&``. Such a job is stopped with SIGTERM.

An exception that a signal handler raises while a module is imported can be lost or turned into
another error inside C code, so during an import the process ends in the handler itself; its part
files are removed first. The program also remembers that it was told to end (``ended``), in case a
library swallowed the exception.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from dit_tools.core.errors import ExitCode

NOTICE = "dit: finishing the current item; press Ctrl-C again to stop now"
TERMINATING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

temporary: set[Path] = set()
"""Part files and folders of this process, removed when it ends in a signal handler."""
_program = False  # whether signals are handled for the program itself, from its start
_leaving = False
_ended: ExitCode | None = None


class Terminated(BaseException):
    """SIGTERM or SIGHUP came. Not an Exception, so that no ``except Exception`` on the way keeps it."""

    code = ExitCode.TERMINATED


def ended() -> ExitCode | None:
    """The exit status of a program that a signal told to end; None where none did."""
    return _ended


def check() -> None:
    """Raise Terminated once more where a library has swallowed it."""
    if ended() == ExitCode.TERMINATED:
        raise Terminated


def arm() -> None:
    """Handle signals from now on, for the program itself: call it before anything heavy is imported.

    Until an ``Interruptible`` block begins there is no item to finish, so the first Ctrl-C ends it.
    """
    global _program
    _program = True
    for number in TERMINATING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)


def leave() -> None:
    """The work is done or has failed: what comes now would only print a traceback.

    Ctrl-C is ignored, SIGTERM ends the process at once.
    """
    global _leaving
    _leaving = True
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


class Interruptible:
    """Handle SIGINT, SIGTERM and SIGHUP inside the block, and restore the handlers after it.

    The loop over items looks at ``stop_requested`` between two items. A signal that the process was
    told to ignore stays ignored. Outside the main thread, where Python allows no handlers, nothing
    is changed.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            handlers = {signal.SIGINT: self._interrupt} | dict.fromkeys(TERMINATING, _terminate)
            for number, handler in handlers.items():
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None: the handler was not set from Python and cannot be put back by it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested:
            _stop(number, frame)
        self.stop_requested = True
        # sys.stderr may be in the middle of a write, and is not reentrant; the descriptor is.
        with contextlib.suppress(OSError):
            os.write(2, f"{NOTICE}\n".encode())


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C that means now."""
    if _importing(frame):
        end_now(ExitCode.INTERRUPTED)
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM and SIGHUP. The second one does not wait for what the first one began."""
    global _ended
    if _ended is not None or _leaving or _importing(frame):
        end_now(ExitCode.TERMINATED)
    if _program:
        _ended = ExitCode.TERMINATED
    raise Terminated


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def end_now(code: int) -> NoReturn:
    """End this process at once, with its part files removed.

    The interpreter's own way out can abort: threads of ONNX Runtime may still be at work.
    """
    for path in list(temporary):
        with contextlib.suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    os._exit(code)
