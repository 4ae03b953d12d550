"""In this process, one batch after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dit_tools.core.errors import DitError
from dit_tools.jobs.executors import Batch, Watch
from dit_tools.jobs.items import Made, Task


class Local:
    """Makes a batch when its results are asked for."""

    def map(self, task: Task, batches: Iterable[Batch], watch: Watch) -> Iterator[tuple[Batch, Made | DitError]]:
        """See ``Executor``."""
        for batch in batches:
            try:
                made: Made | DitError = task.make(batch, watch(batch))
            except DitError as error:
                made = error
            yield batch, made
