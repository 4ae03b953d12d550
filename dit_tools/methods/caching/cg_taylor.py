"""Confidence-gated Taylor: forecast the last block while the forecast of the first one is right."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dit_tools.core.forecast import FORMS, Forecast
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable, geometric_grid
from dit_tools.methods.caching._per_stack import BranchState, attach
from dit_tools.methods.caching._policy import Gate


@method(
    paper="arXiv:2508.02240",
    year=2025,
    title="Forecasting When to Forecast: Accelerating Diffusion Models with Confidence-Gated Taylor",
    authors="Guan, Jiang, Chen, et al.",
    needs={"stack"},
    identity={"threshold": 0.0},
)
class CgTaylor(Cache):
    """Compute block 1; if its forecast was right, forecast the last block and skip the rest.

    With ``a`` what leaves block 1 and ``a'`` its Taylor forecast, the rest is skipped when
    ``mean|a' - a| / mean|a| < threshold``. Both series are refreshed at full calls only, so that
    both reach equally far and one error tells of the other (Guan et al. 2025).

    The error is one number for the whole network call: all images of a batch and all branches
    that share the call are skipped together, so an image may depend on its batch. A network of
    one block is never skipped. Differs from the paper: at most ``max_skips`` calls in a row.
    """

    dial: ClassVar[Tunable] = Tunable("threshold", geometric_grid(0.001, 2.0))

    threshold: float = param(0.008, "relative error of block 1 to skip below; 0 = exact", ge=0)
    order: int = param(1, "degree of the last block's series", ge=0, le=4)
    gate_order: int = param(3, "degree of block 1's series", ge=0, le=4)
    warmup: int = param(3, "calls computed in full at the beginning", ge=1)
    max_skips: int = param(4, "calls skipped in a row at most; 0 = no limit", ge=0)
    gate: str = param("output", "what of block 1 is forecast: residual = what it adds", choices=("output", "residual"))
    form: str = param("taylor", "taylor as published, newton through all nodes", choices=FORMS)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when there are no blocks."""

        def begin() -> BranchState:
            head = Forecast(self.gate_order, self.form)
            gate = Gate(self.threshold, self.max_skips, head, self.gate == "residual")
            return BranchState(gate, Forecast(self.order, self.form))

        return attach(blocks, run, self.warmup, begin, self.info.name)
