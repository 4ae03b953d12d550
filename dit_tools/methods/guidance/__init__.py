"""Guidance: how conditional and other predictions become one (``--guidance``).

Contract: ``begin() -> guide``, a fresh function for every run, so that state (momentum, counters)
never leaks; ``guide(evaluate, x, t) -> Prediction``. ``evaluate(COND, UNCOND)`` asks for the
branches it needs, all at once, and gets their Predictions in that order; the denoiser decides
about batching. A branch may perturb the network: ``Branch("pag", "cond", perturb)``, where
``perturb(blocks)`` is a context manager; such a method has ``needs={"blocks"}``.
A method that looks at pictures (``sees``) asks ``self.critic()`` in ``begin``: the run has bound
one with ``watched(critic)``, which scores clean latents against the prompts of its rows.

Example::

    @method(paper="arXiv:2207.12598", title="...", year=2022)
    class Cfg(Guidance):
        \"\"\"...\"\"\"
        scale: float = param(4.0, "1 = the conditional prediction alone", ge=0)

        def begin(self):
            def guide(evaluate, x, t):
                cond, uncond = evaluate(COND, UNCOND)
                return cond.with_raw(uncond.raw + self.scale * (cond.raw - uncond.raw))
            return guide

Furniture: ``_base`` (``Guidance``, ``Branch``, ``COND``, ``UNCOND``, ``Critic``), ``_norms``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from typing import ClassVar, Protocol, Self

from dit_tools.core.arrays import Array
from dit_tools.core.branches import COND, UNCOND, Branch
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo

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
                f"--guidance {self.info.name}: only dit generate lets it see pictures", "use another guidance"
            )
        return self._critic
