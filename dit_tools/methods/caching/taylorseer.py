"""TaylorSeer: skip the blocks at fixed intervals and forecast what they would give."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dit_tools.core.forecast import FORMS, VARIABLES, Forecast
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable
from dit_tools.methods.caching._per_module import Unit, attach_modules
from dit_tools.methods.caching._per_stack import BranchState, attach
from dit_tools.methods.caching._policy import Interval


@method(
    paper="arXiv:2503.06923",
    year=2025,
    title="From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers",
    authors="Liu, Zou, Lyu, Chen, Zhang",
    needs={"stack"},
    identity={"interval": 1},
)
class TaylorSeer(Cache):
    """Forecast block outputs by a Taylor series in the step index, refreshed every N calls.

    ``F(s) = sum_i D_i (s - s0)^i / i!`` with finite differences ``D_i`` over the computed calls,
    ``s0`` the latest of them (Liu et al. 2025). Order 0 is plain reuse (FORA).

    With ``level=block`` the stack of blocks is forecast. A block's forecast does not depend on what
    enters it, so only the last block's reaches the output and only that one is kept: the result is
    the same as with a series for every block. With ``level=module``, as published, attention and
    MLP are forecast by themselves before their gates, which follow the current time; norms, gates
    and residual sums are computed, and a series is kept for every module. Differs from the paper:
    the last step is always computed in full.
    """

    dial: ClassVar[Tunable] = Tunable("interval", tuple(range(1, 13)))

    order: int = param(1, "degree of the series; 0 = reuse", ge=0, le=4)
    interval: int = param(5, "full computation every N calls; 1 = exact", ge=1)
    warmup: int = param(3, "calls computed in full at the beginning", ge=1)
    form: str = param("taylor", "taylor as published, newton through all nodes", choices=FORMS)
    variable: str = param("step", "variable of the series: the number of the call or the time", choices=VARIABLES)
    level: str = param("block", "unit that is forecast: whole stack or single modules", choices=("block", "module"))

    @property
    def needs(self) -> frozenset[str]:
        """Modules are found in blocks only."""
        return frozenset({"blocks"}) if self.level == "module" else self.info.needs

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when there are no blocks."""
        timed = self.variable == "time"

        def stack() -> BranchState:
            return BranchState(Interval(self.interval), Forecast(self.order, self.form), timed=timed)

        def module(index: int) -> Unit:
            return Unit(Interval(self.interval), Forecast(self.order, self.form), timed)

        if self.level == "module":
            return attach_modules(blocks, run, self.warmup, module, self.info.name)
        return attach(blocks, run, self.warmup, stack, self.info.name)
