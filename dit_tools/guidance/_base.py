"""The verb of the room and the branches that a guidance may ask for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo


@dataclass(frozen=True)
class Branch:
    """One way of calling the network: a named condition (``cond`` or ``uncond``).

    ``perturb(blocks)`` gives a context in which the network is changed; such a branch has a name
    of its own and the ``condition`` of another one, and gets a network call of its own.
    """

    name: str
    condition: str = ""  # empty: that of its name
    perturb: Callable[[Sequence[Any]], AbstractContextManager[None]] | None = None


COND = Branch("cond")
UNCOND = Branch("uncond")

Evaluate = Callable[..., tuple[Prediction, ...]]
Guide = Callable[[Evaluate, Array, float], Prediction]


class Guidance(ABC):
    """A rule that makes one prediction out of several branches."""

    info: ClassVar[MethodInfo]

    @property
    def alternates(self) -> bool:
        """Whether the branches that it asks for change back and forth during a run."""
        return False

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The conditions that must be encoded before a run."""
        return (COND, UNCOND)

    @abstractmethod
    def begin(self) -> Guide:
        """A fresh guide for one run."""
