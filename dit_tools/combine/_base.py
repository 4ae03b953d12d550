"""The verb of the room, and what a method sees of the run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UsageError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo
from dit_tools.guidance._base import Branch
from dit_tools.highres._base import HighRes
from dit_tools.solvers._base import Step

SECOND = Branch("second")
"""The condition of ``--second-prompt`` on the model of ``--model``."""


class Expert(Protocol):
    """One of the denoisers of a run."""

    def __call__(self, x: Array, t: float) -> Prediction:
        """The guided prediction."""
        ...

    def ask(self, branches: Sequence[Branch], x: Array, t: float) -> tuple[Prediction, ...]:
        """The predictions of branches, in their order."""
        ...


@dataclass(frozen=True)
class Stage:
    """The run of a combination: ``times`` has one entry more than there are steps.

    ``guidance`` is the plan's, ``noise.fresh()`` gives noise like the latents.
    """

    experts: tuple[Expert, ...]
    solver: Any
    guidance: Any
    times: tuple[float, ...]
    noise: Any

    @property
    def total(self) -> int:
        """Number of steps."""
        return len(self.times) - 1


class Combine(ABC):
    """A rule for sampling with two denoisers."""

    info: ClassVar[MethodInfo]
    takes: ClassVar[frozenset[str]] = frozenset()  # of "model", "prompt"
    own_solver: ClassVar[str] = ""  # the spec of the solver that it steps as, if not the plan's

    def second(self, guidance: Any) -> Any:
        """The guidance of the second model, where ``guidance`` is that of the run."""
        return guidance

    def compose(self, plan: Any) -> None:
        """Raise UsageError when the rest of the plan has no place in a combined run."""
        if type(plan.highres).steps is not HighRes.steps and self.info.name != "none":
            name = plan.highres.info.name
            message = f"--combine {self.info.name}: --highres {name} makes several runs"
            raise UsageError(message, "leave one of them out")

    @abstractmethod
    def steps(self, stage: Stage, x: Array) -> Iterator[Step]:
        """Yield a ``Step`` for every interval of ``stage.times``; ``x`` is (B, C, h, w)."""
