"""Ctrl-C once finishes the current item, twice stops now; SIGTERM stops now and cleans up."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from dit_tools.core.errors import ExitCode

NOTICE = "dit: finishing the current item; press Ctrl-C again to stop now"


class Terminated(BaseException):
    """SIGTERM came. Not an Exception, so that no ``except Exception`` on the way keeps it."""

    code = ExitCode.TERMINATED


class Interruptible:
    """Handle SIGINT and SIGTERM inside the block, and restore the handlers after it.

    The loop over items looks at ``stop_requested`` between two items. A signal that the process was
    told to ignore (nohup, a background job) stays ignored. Outside the main thread, where Python
    allows no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            handlers = {signal.SIGINT: self._interrupt, signal.SIGTERM: self._terminate}
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
            raise KeyboardInterrupt
        self.stop_requested = True
        # sys.stderr may be in the middle of a write, and is not reentrant; the descriptor is.
        with contextlib.suppress(OSError):
            os.write(2, f"{NOTICE}\n".encode())

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        raise Terminated
