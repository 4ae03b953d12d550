"""The verb of the room and the branches that a guidance may ask for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
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


class Critic(Protocol):
    """Who looks at clean latents (B, C, h, w) during a run and knows the prompts of its rows."""

    def scores(self, x0: Array) -> Sequence[float]:
        """How well each row agrees with its prompt: cosines in [-1, 1]."""
        ...

    def gradient(self, x0: Array, joint: float, marginal: float) -> Array:
        """Of ``joint f_y - log sum_c exp(marginal f_c)`` by x0; f are cosines, y the prompt."""
        ...


class Guidance(ABC):
    """A rule that makes one prediction out of several branches."""

    info: ClassVar[MethodInfo]
    sees: ClassVar[bool] = False  # whether it asks a critic
    _critic: ClassVar[Critic | None] = None  # of one run, set by ``watched``

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

    def watched(self, critic: Critic) -> Self:
        """The same method for one run, with somebody to ask what a picture shows."""
        made = copy(self)
        object.__setattr__(made, "_critic", critic)
        return made

    def critic(self) -> Critic:
        """Whom ``watched`` gave. Raises UnsupportedError where there is nobody."""
        if self._critic is None:
            raise UnsupportedError(
                f"--guidance {self.info.name}: only dit generate lets it see pictures",
                "use another guidance",
            )
        return self._critic
