"""Where batches are made: ``local`` in this process; others send tasks and items elsewhere.

Contract: ``map`` takes batches from an iterator as it has need of them and gives each back with
what it became, in any order. The iterator ends early when the user stops the run; batches that were
taken are finished. A task and its items can be pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from dit_tools.core.errors import DitError
from dit_tools.jobs.items import Item, Made, Report, Task

Batch = Sequence[Item]
Watch = Callable[[Batch], Report]
"""Gives what is to be called with the progress of a batch; an executor elsewhere may leave it."""


class Executor(Protocol):
    """Runs ``task.make`` on batches."""

    def map(self, task: Task, batches: Iterable[Batch], watch: Watch) -> Iterator[tuple[Batch, Made | DitError]]:
        """Every batch with its results, or with the DitError that ``make`` raised."""
        ...
