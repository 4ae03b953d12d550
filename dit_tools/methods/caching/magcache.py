"""MagCache: skip while the known growth of what the blocks add stays near one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.forecast import Forecast
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable, geometric_grid
from dit_tools.methods.caching._per_stack import BranchState, attach
from dit_tools.methods.caching._policy import Budget
from dit_tools.models.calibration import CALIBRATION, table


@method(
    paper="arXiv:2506.09045",
    year=2025,
    title="MagCache: Fast Video Generation with Magnitude-Aware Cache",
    authors="Ma, Wei, Zhang, Zheng, et al.",
    needs={"stack"},
    identity={"calibration": "none"},
)
class Magcache(Cache):
    """Reuse what all blocks add together, as long as its size is known to change little.

    With ``gamma_k`` the mean over tokens of ``|R_k| / |R_k-1|``, ``R`` what the blocks add to what
    enters them, a run of skipped calls costs ``sum_j |1 - prod_i<=j gamma_i|``; it ends when that
    reaches the threshold (Ma et al. 2025). ``gamma`` is measured once by ``dit calibrate``;
    ``calibration=flat`` takes 1 for all. The last step is always computed in full, and ``order``
    may forecast instead of reusing: both differ from the paper. The diffusers library has this rule
    for models that it knows as cacheable; here it runs on the hooks of every family, with a state
    for each set of branches.
    """

    calibrated_by: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[frozenset[str]] = frozenset({"none", "flat"})
    dial: ClassVar[Tunable] = Tunable("threshold", geometric_grid(0.002, 4.0))

    threshold: float = param(0.06, "error that a run of skips may add up to; 0 = exact", ge=0)
    max_skips: int = param(3, "calls skipped in a row at most; 0 = no limit", ge=0)
    retention: float = param(0.2, "share of calls computed in full at the beginning", ge=0, le=1)
    order: int = param(0, "degree of the forecast of what is added; 0 = reuse", ge=0, le=4)
    calibration: str = param("auto", CALIBRATION + "; or flat, none")

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when there are no blocks."""
        threshold = 0.0 if self.calibration == "none" else self.threshold

        def begin() -> BranchState:
            policy = RatioDrift(threshold, self.max_skips, ratios=calibrated_ratios(run))
            return BranchState(policy, Forecast(self.order), relative="input")

        warmup = max(int(self.retention * run.calls_expected + 0.5), 1)
        return attach(blocks, run, warmup, begin, self.info.name)


def calibrated_ratios(run: RunState) -> Sequence[float]:
    """The calibrated ratios of the current branches, one a call; none where they are unknown."""
    name = "ratio." + "+".join(run.branches)
    if run.calibration is None or name not in run.calibration.arrays:
        return ()
    return table(run.calibration, name, (run.calls_expected,)).tolist()


@dataclass
class RatioDrift(Budget):
    """Each skipped call adds how far the product of ratios since the last full call is from 1."""

    ratios: Sequence[float] = ()
    product: float = 1.0

    def cost(self, call: int, entered: Array) -> float:
        """``|1 - product|``; a call beyond the table has ratio 1."""
        self.product *= self.ratios[call] if call < len(self.ratios) else 1.0
        return abs(1.0 - self.product)

    def learn(self, call: int, entered: Array, left: Array) -> None:
        """Start over."""
        super().learn(call, entered, left)
        self.product = 1.0
