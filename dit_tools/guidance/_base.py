"""The verb of the room and the branches that a guidance may ask for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo


@dataclass(frozen=True)
class Branch:
    """One way of calling the network: a named condition (``cond`` or ``uncond``)."""

    name: str


COND = Branch("cond")
UNCOND = Branch("uncond")

Evaluate = Callable[..., tuple[Prediction, ...]]
Guide = Callable[[Evaluate, Array, float], Prediction]


class Guidance(ABC):
    """A rule that makes one prediction out of several branches."""

    info: ClassVar[MethodInfo]

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The conditions that must be encoded before a run."""
        return (COND, UNCOND)

    @abstractmethod
    def begin(self) -> Guide:
        """A fresh guide for one run."""
