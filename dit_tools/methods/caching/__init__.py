"""Caching: skip network blocks whose outputs can be forecast (``--cache``).

Contract: ``attach(blocks, run) -> context manager``. Inside it the network computes less.
``blocks`` is the flat list that ``models.blocks`` makes; ``run`` tells which call this is
(``run.call``, ``run.t``), which branches it is for (``run.branches``), and takes counts
(``run.count["blocks computed"]``, ``run.count["blocks skipped"]``). State is born in ``attach``,
keyed by ``run.branches``, and dies with it. At its identity parameters a cache is bit-equal to
none.

A method for a whole stack of blocks is a policy (when to skip) and a forecast (what to put there)::

    @method(paper="arXiv:2503.06923", needs={"stack"}, identity={"interval": 1})
    class TaylorSeer(Cache):
        \"\"\"...\"\"\"
        interval: int = param(5, "full computation every N calls; 1 = exact", ge=1)

        def attach(self, blocks, run):
            def begin():
                return Stream(Interval(self.interval), Forecast(order=1))
            return attach(blocks, run, 3, begin, self.info.name)

``needs={"stack"}``: block 1 and the last block are enough, as networks in PyTorch and graphs in
pieces have them; with ``needs={"blocks"}`` every block is a module of PyTorch. A class whose
parameters decide overrides ``needs``. A cache of whole network calls, which needs no blocks, wraps
the network in ``around(network, run)`` instead (``output``).

``PRESETS`` are words for specs, for users who want no parameters.

Helpers: ``_policy`` (``Interval``, ``Listed``, ``Gate``), ``_stack`` (hooks, branches, warm-up, last
step, counters) and ``dit_tools.core.forecast`` (``Forecast`` on numpy and torch arrays).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.errors import UsageError
from dit_tools.core.registry import MethodInfo
from dit_tools.core.run import RunState


@dataclass(frozen=True)
class Tunable:
    """The parameter that trades fidelity for speed, and its values from exact to bold."""

    field: str
    values: tuple[float, ...]


def geometric_grid(low: float, high: float) -> tuple[float, ...]:
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
    dial: ClassVar[Tunable | None] = None
    calibrated_by: ClassVar[tuple[str, ...] | None] = None
    words: ClassVar[frozenset[str]] = frozenset()

    @property
    def needs(self) -> frozenset[str]:
        """What it needs of a network with these parameters."""
        return self.info.needs

    @property
    def remembers(self) -> bool:
        """Whether it carries anything over from one network call to the next."""
        return self.info.name != "none"

    def prepare(self, model: Any, plan: Any, run: RunState) -> None:
        """Find what the run needs to know: called once, before ``attach``, with the run's times.

        Raises InputError when there is no calibration, or one for something else.
        """
        run.path = model.path
        if self.calibrated_by is not None and run.calibration is None:
            from dit_tools.models.calibration import find_calibration

            run.calibration = find_calibration(self, model, plan, run.times)

    def times(self, run: RunState) -> tuple[float, ...]:
        """The times to sample at, after ``prepare``; a cache may shift those of the run."""
        return run.times

    def around(self, network: Any, run: RunState) -> Any:
        """The network of one run, for a cache of whole network calls; else the network itself."""
        return network

    @abstractmethod
    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Hook the blocks until the context is left; ``blocks`` are ``core.blocks.Block``."""

    def compose(self, plan: Any) -> None:
        """Raise UsageError, with the reason, for methods that this one cannot work alongside."""
        if self.info.name == "none":
            return
        if getattr(plan.guidance, "alternates", False):
            raise UsageError(
                f"--cache {self.info.name} with --guidance {plan.guidance.info.name}: the branches "
                "change too often, and a cache starts again then and skips nothing",
                "use one of them",
            )


PRESETS = {
    "slow": "taylorseer:interval=2",
    "medium": "taylorseer:interval=3",
    "fast": "taylorseer:interval=4",
    "ultra": "taylorseer:interval=6",
}
"""``--cache fast`` and the like: how many calls are skipped; what that costs differs by model."""
