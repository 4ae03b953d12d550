"""Guidance: how conditional and other predictions become one (``--guidance``).

Contract: ``begin(run) -> guide``, a fresh function for every run, so that state (momentum,
counters) never leaks. ``guide(x, t)`` is a generator: it yields the branches it wants, all at once,
is sent their Predictions in that order, and returns the guided Prediction. It may ask several times.
The denoiser drives it and decides about batching; several guides can be driven in lock-step. A
branch may perturb the network: ``Branch("pag", "cond", perturb)``, where ``perturb(blocks)`` is a
context manager; such a method has ``needs={"blocks"}``. ``branches`` names the conditions that must
be encoded before a run, as many as the method wants of those that families know.
A method that looks at images (``sees``) takes ``self.scorer(run)`` in ``begin``.

Example::

    @method(paper="arXiv:2207.12598", title="...", year=2022)
    class Cfg(Guidance):
        \"\"\"...\"\"\"
        scale: float = param(4.0, "1 = the conditional prediction alone", ge=0)

        def begin(self, run):
            def guide(x, t):
                cond, uncond = yield COND, UNCOND
                return cond.with_raw(uncond.raw + self.scale * (cond.raw - uncond.raw))
            return guide
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.branches import COND, UNCOND, Branch
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo
from dit_tools.core.run import ImageTextScorer, RunState

__all__ = ["COND", "UNCOND", "Branch", "Guidance", "Guide", "Guiding"]

Guiding = Generator[tuple[Branch, ...], tuple[Prediction, ...], Prediction]
"""One guided evaluation: branches out, their predictions in, the guided prediction at the end."""
Guide = Callable[[Array, float], Guiding]
"""``guide(x, t)``: latents (B, C, [F,] H, W) and the time in [0, 1]."""


class Guidance(ABC):
    """A rule that makes one prediction out of several branches."""

    info: ClassVar[MethodInfo]
    sees: ClassVar[bool] = False  # whether it looks at images

    @property
    def alternates(self) -> bool:
        """Whether the branches that it asks for change back and forth during a run."""
        return False

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The conditions that must be encoded before a run."""
        return (COND, UNCOND)

    @abstractmethod
    def begin(self, run: RunState) -> Guide:
        """A fresh guide for one run."""

    def scorer(self, run: RunState) -> ImageTextScorer:
        """Who scores this run's images. Raises UnsupportedError where nobody does."""
        if run.scorer is None:
            raise UnsupportedError(
                f"--guidance {self.info.name}: only dit generate lets it see images", "use another guidance"
            )
        return run.scorer
