"""The verbs of the room: attach to a network's blocks for the length of one run, and around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.errors import UsageError
from dit_tools.core.registry import MethodInfo
from dit_tools.core.run import Run


@dataclass(frozen=True)
class Dial:
    """The parameter that trades fidelity for speed, and its values from exact to bold."""

    field: str
    values: tuple[float, ...]


def rungs(low: float, high: float) -> tuple[float, ...]:
    """``low`` and its multiples by the square root of 2, of three digits, up to ``high``."""
    made, value = [], low
    while value <= high * 1.001:
        made.append(float(f"{value:.3g}"))
        value *= 2**0.5
    return tuple(made)


class Cache(ABC):
    """A rule for reusing or forecasting block outputs.

    ``dial`` is what ``--min-psnr`` turns. A cache that ``dit calibrate`` makes a file for has a
    parameter ``calibration``; ``calibrated_by`` names the parameters that the file depends on, and
    ``words`` what may stand in place of a file.
    """

    info: ClassVar[MethodInfo]
    dial: ClassVar[Dial | None] = None
    calibrated_by: ClassVar[tuple[str, ...] | None] = None
    words: ClassVar[frozenset[str]] = frozenset()

    @property
    def needs(self) -> frozenset[str]:
        """What it needs of a network with these parameters."""
        return self.info.needs

    def prepare(self, model: Any, plan: Any, run: Run) -> None:
        """Find what the run needs to know: called once, before ``attach``, with the run's times.

        Raises InputError when there is no calibration, or one for something else.
        """
        run.path = model.path
        if self.calibrated_by is not None and run.calibration is None:
            from dit_tools.caching._calibration import find

            run.calibration = find(self, model, plan, run.times)

    def times(self, run: Run) -> tuple[float, ...]:
        """The times to sample at, after ``prepare``; a cache may shift those of the run."""
        return run.times

    def around(self, network: Any, run: Run) -> Any:
        """The network of one run, for a cache of whole network calls; else the network itself."""
        return network

    @abstractmethod
    def attach(self, blocks: Sequence[Any], run: Run) -> AbstractContextManager[None]:
        """Hook the blocks until the context is left; ``blocks`` are ``models.blocks.Block``."""

    def compose(self, plan: Any) -> None:
        """Raise UsageError, with the reason, for methods that this one cannot work beside."""
        if self.info.name == "none":
            return
        if getattr(plan.guidance, "alternates", False):
            raise UsageError(
                f"--cache {self.info.name} with --guidance {plan.guidance.info.name}: the branches "
                "change too often, and a cache starts anew then and skips nothing",
                "use one of them",
            )
