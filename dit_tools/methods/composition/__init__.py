"""Combine: one sampling run out of two models, or of two prompts (``--combine``).

Contract: ``steps(stage, x) -> Iterator[Step]``. ``stage.experts`` are denoisers, each with its own
network, conditions, guidance and cache: the first is that of ``--model``, the second that of
``--second-model``. ``expert(x, t)`` is a guided prediction, ``expert.ask(branches, x, t)`` gives
single branches; a second prompt for the same model is the branch ``second`` of the first expert.
``takes`` says what of ``model`` and ``prompt`` a method has a use for; without any the option is
refused. A method that steps by itself names the solver whose steps it takes as ``own_solver``.

Both models are asked at the same latents and times, so they must share the autoencoder and the
noise path (``sampling`` checks that); each reads its own prompt encoding and its own output kind.

Example::

    @method(paper="arXiv:2402.14167", ..., identity={"share": 0.0})
    class TStitch(Combine):
        \"\"\"...\"\"\"
        takes = frozenset({"model"})
        share: float = param(0.4, "share of the steps that the second model takes", ge=0, le=1)

        def steps(self, stage, x):
            return stitched(stage, x, int(self.share * stage.total))

Helpers: ``Stage``, ``Expert`` and ``SECOND`` below, ``_stitch`` (one model first, the other after it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from dit_tools.core.arrays import Array
from dit_tools.core.branches import Branch
from dit_tools.core.errors import UsageError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo
from dit_tools.core.steps import Step

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
        if plan.highres.several_runs and self.info.name != "none":
            name = plan.highres.info.name
            message = f"--combine {self.info.name}: --highres {name} makes several runs"
            raise UsageError(message, "leave one of them out")

    @abstractmethod
    def steps(self, stage: Stage, x: Array) -> Iterator[Step]:
        """Yield a ``Step`` for every interval of ``stage.times``; ``x`` is (B, C, h, w)."""
