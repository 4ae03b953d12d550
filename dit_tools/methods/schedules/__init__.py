"""Schedules: at which times the network is called (``--schedule``).

Contract: ``times(steps, target) -> tuple[float, ...]`` with ``steps + 1`` times, strictly falling,
ending at 0; ``t`` is in [0, 1] and 1 is noise (``core.paths``). A schedule knows the path, the
number of image tokens and the model's scheduler config (``ModelInfo``); never the solver.

Example::

    @method(paper="arXiv:2206.00364", title="...", year=2022)
    class Karras(Schedule):
        \"\"\"...\"\"\"
        rho: float = param(7.0, "curvature", gt=0)

        def times(self, steps, target): ...

Helpers: ``_ramps`` (ramps of noise levels and flow times).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from dit_tools.core.paths import ModelInfo
from dit_tools.core.registry import MethodInfo


class Schedule(ABC):
    """A rule for the times of a run."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def times(self, steps: int, target: ModelInfo) -> tuple[float, ...]:
        """``steps + 1`` strictly falling times in [0, 1], the last one 0."""
