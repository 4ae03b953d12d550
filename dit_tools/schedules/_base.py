"""The verb of the room: turn a number of steps into falling times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from dit_tools.core.paths import Target
from dit_tools.core.registry import MethodInfo


class Schedule(ABC):
    """A rule for the times of a run."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def times(self, steps: int, target: Target) -> tuple[float, ...]:
        """``steps + 1`` strictly falling times in [0, 1], the last one 0."""
