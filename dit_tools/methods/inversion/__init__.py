"""Inversion: from clean latents back to the noise that makes them (``--inversion``).

Contract: ``invert(denoise, x0, times, noise) -> Inverted``: the latents at ``times[0]``, and
``state``, named arrays that the way back needs besides them (the other half of a pair, a
trajectory). ``back(state)`` is the solver for the way back; it takes the same times. ``times`` fall
and end at 0; ``usable`` cuts off those that a method cannot divide by. ``denoise`` is guided
already; arrays are numpy or torch alike, in whatever precision ``x0`` has.

Example::

    chosen = spec.parse("inversion", "edict")
    times = chosen.usable(plan.times(model, x0.shape), model.path)
    found = chosen.invert(denoise, x0, times, noise)
    *_, last = chosen.back(found.state).steps(denoise, found.noise, times, noise)   # last.x is x0

The file of ``dit invert`` is written by ``dit_tools.media.latent_file``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UsageError
from dit_tools.core.paths import Path
from dit_tools.core.plan import Plan
from dit_tools.core.registry import MethodInfo
from dit_tools.core.steps import Denoise, Inverted, Stepper


class Inversion(ABC):
    """A rule for going from data to noise, and the solver for the way back.

    ``rows`` is 2 where the way back runs the source next to every edit, as first row of the batch.
    ``exact`` promises the round trip up to rounding, whatever the network says. ``guided`` tells
    that both ways are made for one and the same guidance, which must be there.
    """

    info: ClassVar[MethodInfo]
    rows: ClassVar[int] = 1
    exact: ClassVar[bool] = False
    guided: ClassVar[bool] = False
    carries: ClassVar[tuple[str, ...]] = ()  # names of the arrays in ``state``

    def compose(self, plan: Plan) -> None:
        """Raise UsageError, with the reason, for a method of the plan that cannot invert or come back."""
        flag, options = f"--inversion {self.info.name}", plan.remembering()
        if options and (self.exact or self.info.needs):
            reason = "is exact only where both ways ask the same network" if self.exact else "learns from every call"
            raise UsageError(f"{options[0]}: {flag} {reason}", "leave it out, or use --inversion ddim")
        if plan.cache.calibrated_by is not None:
            name = plan.cache.info.name
            raise UsageError(
                f"--cache {name}: it is calibrated for falling times, and an inversion climbs them",
                "use --cache output or taylorseer",
            )
        if plan.tokens.whole_runs:
            name = plan.tokens.info.name
            raise UsageError(f"--tokens {name}: its stages begin at pure noise", "use --tokens ras")

    def usable(self, times: Sequence[float], path: Path) -> tuple[float, ...]:
        """The times that the method can run over; most can run over all."""
        return tuple(times)

    @abstractmethod
    def invert(self, denoise: Denoise, x0: Array, times: Sequence[float], noise: Any = None) -> Inverted:
        """Latents at ``times[0]`` from clean ``x0`` (B, C, h, w).

        ``noise`` is a stream (``noise.fresh() -> array like x0``), for stochastic methods only.
        """

    @abstractmethod
    def back(self, state: Mapping[str, Array]) -> Stepper:
        """The solver that leads from ``Inverted.noise`` to the data again, over the same times."""
