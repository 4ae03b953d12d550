"""What a run is made of: items, what they become, and the task that makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools.core.errors import DitError
from dit_tools.jobs.names import Value

Report = Callable[[float], None]
"""Told the share of a batch that is done, 0 to 1, while it is made."""

Content = bytes | Callable[[Path], None]
"""A whole file, or a function that writes it to the path that it is given."""


@dataclass(frozen=True)
class Item:
    """One output to make. Plain data, so that another process can be given it.

    Attributes:
        index: its position in the run, from 0.
        source: what messages call it, such as the input file; empty: the path of its output.
        data: what the task needs to make it.
        suffix: of the output's name, such as ``.png``, where ``-o`` gives none.
        fields: values of the name template (``stem``, ``index``, ``seed``, ...).
        identity: everything but the contents of ``inputs`` that decides the output: the method and
            its parameters, the model's revision, the seed, the names of the inputs, the format. JSON
            values. Two runs that agree in it and in the inputs make the same output, once.
        inputs: the files whose contents decide the output.
        told: what every event about this item says besides ``index`` and ``path``.
        weight: its share of the progress bar, such as the number of sampling steps.
    """

    index: int
    source: str = ""
    data: Any = None
    suffix: str = ".png"
    fields: Mapping[str, Value] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 1


@dataclass
class Result:
    """What an item became: a whole file, and what the event says of it.

    ``content`` None writes nothing, for a task that only measures. ``data`` is for the task's own
    ``finished``, such as pixels for a contact sheet.
    """

    content: Content | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    data: Any = None


Made = Sequence[Result | DitError]
"""A result or an error for each item of a batch, in order."""


class Task:
    """The work of a subcommand: override ``make``, and what else it needs.

    ``make`` runs wherever the executor puts it; everything else runs in the process that the user
    started. A task that is sent elsewhere is pickled, so it loads its model in ``make``, once, and
    names the attribute in ``unsent``.
    """

    command = ""
    """Name of the subcommand, for the ``start`` event."""
    counted = "pictures"
    """What the progress bar counts: items, or what their weights are."""
    input_name = ""
    """What messages call the input of a ``flow``."""
    unsent: tuple[str, ...] = ()
    """Attributes that stay in this process, such as the loaded model; None where the task is sent."""

    def __getstate__(self) -> dict[str, Any]:
        return {k: None if k in self.unsent else v for k, v in vars(self).items() if k != "stopping"}

    def make(self, items: Sequence[Item], report: Report) -> Made:
        """The results of a batch. Raises DitError for a batch that failed; of several items each is tried alone."""
        raise NotImplementedError

    def batches(self, items: Sequence[Item]) -> Iterable[Sequence[Item]]:
        """Which items are made together, and in which order: each alone, as they come."""
        return ([item] for item in items)

    def flow(self) -> Iterator[tuple[Item, Result]] | None:
        """Results in place of a plan, for inputs whose number nobody knows, such as the frames of a pipe.

        They are made in this process, in order; look at ``stopping`` between two inputs.
        """
        return None

    def stopping(self) -> bool:
        """Whether the user asked for the end of the run; the runner puts the true answer here."""
        return False

    def skipped(self, item: Item, path: Path) -> None:
        """Told of every item that is there already."""

    def finished(self, item: Item, path: Path | None, result: Result) -> Sequence[str]:
        """Told of every output that is written (path None: to stdout, or not at all).

        Gives the paths of further files that it wrote. A DitError counts as the item's failure.
        """
        return ()

    def close(self) -> Sequence[str]:
        """Called once after a run that was not interrupted; gives the paths of further files. Raises DitError."""
        return ()

    def summary(self) -> str:
        """A line for the user at the end of the run; empty for none."""
        return ""

    def verdict(self) -> int:
        """The exit status of a run in which nothing failed."""
        return 0
