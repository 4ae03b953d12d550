"""What a run tells while it goes: the NDJSON events of ``--json``.

Written to ``docs/schema/events.schema.json``. A listener gets each event as a dictionary; a run
begins with ``start``, has one ``item``, ``skip`` or ``error`` per image, and ends with ``done``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dit_tools.core.errors import DitError, ExitCode

SCHEMA = "dit.event/1"
Listener = Callable[[dict[str, Any]], None]


def event(kind: str, **fields: Any) -> dict[str, Any]:
    """An event; fields that are None are left out."""
    given = {name: value for name, value in fields.items() if value is not None}
    return {"schema": SCHEMA, "type": kind, **given}


def error_event(error: DitError, **fields: Any) -> dict[str, Any]:
    """The event of an error: a stable word for its kind, its exit code, message and remedy."""
    word = {
        ExitCode.USAGE: "usage",
        ExitCode.INPUT: "input",
        ExitCode.MODEL: "model",
        ExitCode.MEMORY: "memory",
        ExitCode.UNSUPPORTED: "unsupported",
    }.get(error.code, "failure")
    code = int(error.code)
    hint = error.hint or None
    return event("error", error=word, exit=code, message=error.message, hint=hint, **fields)


@dataclass
class Outcome:
    """How a run ended."""

    written: list[str] = field(default_factory=list)
    skipped: int = 0
    failed: list[tuple[str, DitError]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)  # sheets and animations
    interrupted: bool = False
    seconds: float = 0.0
    stopped_by: DitError | None = None
    summary: str = ""  # a line for the user
    verdict: int = 0  # exit status of a run in which nothing failed

    @property
    def exit_code(self) -> ExitCode:
        """0; 130 when interrupted; the error's own code when nothing succeeded; else 3."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        if not self.failed:
            return ExitCode.OK
        codes = {error.code for _, error in self.failed}
        if not self.written and not self.skipped and len(codes) == 1:
            return ExitCode(codes.pop())
        return ExitCode.PARTIAL

    def event(self) -> dict[str, Any]:
        """The ``done`` event."""
        code = int(self.exit_code) or self.verdict
        return event(
            "done",
            ok=code == 0,
            exit=code,
            written=len(self.written),
            skipped=self.skipped,
            failed=len(self.failed),
            files=self.files,
            interrupted=self.interrupted,
            seconds=round(self.seconds, 3),
        )
