"""The errors a user can cause, each with its exit code and a remedy."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of every ``dit`` command."""

    OK = 0
    FAILURE = 1  # a bug: please report it
    USAGE = 2  # unknown option, method, parameter or value
    PARTIAL = 3  # the batch finished, some items failed (listed on stderr)
    INPUT = 4  # an input cannot be read, an output cannot be written, or nothing matched
    MODEL = 5  # model missing, gated, damaged or of another hash
    MEMORY = 6  # out of memory
    UNSUPPORTED = 7  # hardware, precision or combination that cannot work
    INTERRUPTED = 130  # Ctrl-C
    PIPE = 141  # the reader of stdout went away, as with cat; nothing is printed
    TERMINATED = 143  # SIGTERM or SIGHUP


class DitError(Exception):
    """One line for the user: what is wrong, and after a semicolon what to do about it."""

    code = ExitCode.FAILURE

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(DitError):
    """The command line asks for something that does not exist or contradicts itself."""

    code = ExitCode.USAGE


class InputError(DitError):
    """A file cannot be read or written, or is not what it should be."""

    code = ExitCode.INPUT


class ModelError(DitError):
    """A model is missing, damaged, unsafe to load or of an unknown kind."""

    code = ExitCode.MODEL


class MemoryLimitError(DitError):
    """The work does not fit into memory."""

    code = ExitCode.MEMORY


class UnsupportedError(DitError):
    """The hardware, precision or combination of methods cannot do this."""

    code = ExitCode.UNSUPPORTED
