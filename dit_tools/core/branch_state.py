"""The memory of a run, one for every tuple of branches, and when it may be used instead of work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from dit_tools.core.run import RunState

S = TypeVar("S")


@dataclass
class _Entry(Generic[S]):
    state: S
    calls: int = 0
    latest: int = -2  # the run's call at which it was last used


class StatePerBranch(Generic[S]):
    """States by ``run.key``; ``begin`` makes one for branches that are new.

    Branches that were not asked for at the call before begin again, for what they remember is as old
    as their absence. The first ``warmup`` calls (>= 1) of a state and the last step are full ones.
    """

    def __init__(self, run: RunState, warmup: int, begin: Callable[[], S]):
        self._run, self._warmup, self._begin = run, warmup, begin
        self._entries: dict[tuple[int, tuple[str, ...]], _Entry[S]] = {}

    def open(self) -> tuple[S, bool]:
        """The state of the current call's branches, and whether this call may skip anything."""
        entry = self._entries.get(self._run.key)
        if entry is None or entry.latest != self._run.call - 1:
            entry = self._entries[self._run.key] = _Entry(self._begin())
        entry.latest = self._run.call
        entry.calls += 1
        return entry.state, entry.calls > self._warmup and not self._last_step()

    def _last_step(self) -> bool:
        # calls_expected is only right for solvers of one evaluation a step; times are for all.
        run = self._run
        return run.t <= run.times[-2] or run.call == run.calls_expected - 1
