"""TaylorSeer: skip the blocks at fixed intervals and forecast what they would give."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from dit_tools.caching._base import Cache
from dit_tools.caching._forecast import FORMS, VARIABLES, Forecast
from dit_tools.caching._policy import Interval
from dit_tools.caching._stack import Stream, attach
from dit_tools.core.registry import method, param
from dit_tools.core.run import Run


@method(
    paper="arXiv:2503.06923", year=2025,
    title="From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers",
    authors="Liu, Zou, Lyu, Chen, Zhang",
    needs={"blocks"}, identity={"interval": 1},
)  # fmt: skip
class TaylorSeer(Cache):
    """Forecast block outputs by a Taylor series in the step index, refreshed every N calls.

    ``F(s) = sum_i D_i (s - s0)^i / i!`` with finite differences ``D_i`` over the computed calls,
    ``s0`` the latest of them (Liu et al. 2025). Order 0 is plain reuse (FORA).

    Differs from the paper: whole blocks are forecast, which works on every family, not attention
    and MLP outputs before their gates. A block's forecast does not depend on what enters it, so
    only the last block's reaches the output and only that one is kept: the result is the same as
    with a series for every block. The last step is always computed in full.
    """

    order: int = param(1, "degree of the series; 0 = reuse", ge=0, le=4)
    interval: int = param(5, "full computation every N calls; 1 = exact", ge=1)
    warmup: int = param(3, "calls computed in full at the beginning", ge=1)
    form: str = param("taylor", "taylor as published, newton through all nodes", choices=FORMS)
    variable: str = param("step", "what differences are over: calls or times", choices=VARIABLES)

    def attach(self, blocks: Sequence[Any], run: Run) -> AbstractContextManager[None]:
        """Raises UnsupportedError when there are no blocks."""

        def begin() -> Stream:
            timed = self.variable == "time"
            return Stream(Interval(self.interval), Forecast(self.order, self.form), timed=timed)

        return attach(blocks, run, self.warmup, begin, self.info.name)
