"""Forecast the network's output: whole calls are skipped, on any network, ONNX graphs too."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from dit_tools.core.forecast import FORMS, VARIABLES, Forecast
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable
from dit_tools.methods.caching._per_call import WHOLE, Forecasting
from dit_tools.methods.caching._per_stack import BranchState, Skipping
from dit_tools.methods.caching._policy import Interval


@method(
    paper="arXiv:2503.06923",
    year=2025,
    title="From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers",
    authors="Liu, Zou, Lyu, Chen, Zhang",
    identity={"interval": 1},
)
class Output(Cache):
    """Call the network every N times and forecast its output by a series in between.

    TaylorSeer's forecast for the network as one block, which needs nothing of the network and so
    works on every backend. Differs from the paper: the final layer is forecast too, with the time
    that enters it. A solver of high order with fewer steps does nearly the same; measure both. The
    first ``warmup`` calls and the last step are computed.
    """

    dial: ClassVar[Tunable] = Tunable("interval", tuple(range(1, 13)))

    order: int = param(1, "degree of the series; 0 = reuse", ge=0, le=4)
    interval: int = param(2, "compute every N-th call; 1 = exact", ge=1)
    warmup: int = param(3, "calls computed at the beginning", ge=1)
    form: str = param("taylor", "taylor as published, newton through all nodes", choices=FORMS)
    variable: str = param("step", "variable of the series: the number of the call or the time", choices=VARIABLES)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Nothing to hook."""
        return nullcontext()

    def around(self, network: Any, run: RunState) -> Any:
        """The network with a memory of its own."""

        def begin() -> BranchState:
            timed = self.variable == "time"
            return BranchState(Interval(self.interval), Forecast(self.order, self.form), timed=timed)

        return Forecasting(network, Skipping([WHOLE], run, self.warmup, begin))
