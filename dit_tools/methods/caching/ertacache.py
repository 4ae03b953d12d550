"""ERTACache: which calls to skip is found offline, and the error is fixed by a fitted line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from dit_tools.core.forecast import Forecast
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable
from dit_tools.methods.caching._per_call import WHOLE, Forecasting
from dit_tools.methods.caching._per_stack import BranchState, Correct, Skipping
from dit_tools.methods.caching._policy import Listed
from dit_tools.models.calibration import CALIBRATION, Calibration, table

LEVELS = (0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0)
"""The thresholds that ``dit calibrate`` works out."""


@method(
    paper="arXiv:2508.21091",
    year=2025,
    title="ERTACache: Error Rectification and Timesteps Adjustment for Efficient Diffusion",
    authors="Peng, Yan, Liu, Ma, et al.",
    identity={"calibration": "none"},
)
class Ertacache(Cache):
    """Skip network calls that ``dit calibrate`` found to be dispensable, and rectify the rest.

    On a few prompts every call whose forecast ``v~`` misses the output by less than ``threshold``,
    ``|v~ - v|_1 / |v|_1`` along the trajectory with skips, is put on the list of skipped ones. For
    each the error is fitted as a line, ``e = K v~ + B``, and subtracted at run time; step sizes are
    multiplied by ``phi = clip(1 - |v~ - v|_1 / |v - v_previous|_1, 0, 1)``, the remaining time
    spread over the remaining steps (Peng et al. 2025). Needs nothing of the network, so it runs on
    every backend. Differs from the paper: outputs are reused or forecast, not outputs minus inputs,
    which mix two spaces; the line is fitted by least squares without a sigmoid around it; lines and
    times are kept only where they bring the calibration images nearer to those without skips; the
    last step is computed.
    """

    calibrated_by: ClassVar[tuple[str, ...]] = ("order",)
    words: ClassVar[frozenset[str]] = frozenset({"none"})
    dial: ClassVar[Tunable] = Tunable("threshold", (0.0, *LEVELS))

    threshold: float = param(0.3, "relative error to skip below; 0 = exact", ge=0)
    order: int = param(1, "degree of the forecast; 0 = reuse, as published", ge=0, le=4)
    rectify: bool = param(True, "subtract the fitted error")
    retime: bool = param(True, "shift the times where calibration found that to help")
    calibration: str = param("auto", CALIBRATION + "; none: compute all")

    def level(self, calibration: Calibration) -> int:
        """Which of the calibrated thresholds is meant: the largest that is not above; -1 = none."""
        known = table(calibration, "threshold", (None,)).tolist()
        return max((i for i, t in enumerate(known) if t <= self.threshold * 1.001), default=-1)

    def times(self, run: RunState) -> tuple[float, ...]:
        """The corrected times."""
        if not run.calibration or not self.retime or self.level(run.calibration) < 0:
            return run.times
        shape = (None, len(run.times))
        row = table(run.calibration, "corrected", shape)[self.level(run.calibration)]
        unchanged = all(abs(a - b) < 1e-6 for a, b in zip(row, run.times, strict=True))
        return run.times if unchanged else tuple(float(value) for value in row)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Nothing to hook."""
        return nullcontext()

    def around(self, network: Any, run: RunState) -> Any:
        """The network with a memory and a list of calls to skip."""
        calls = run.calls_expected
        if not run.calibration or self.level(run.calibration) < 0:
            return network
        row = self.level(run.calibration)
        skipped = table(run.calibration, "skipped", (None, calls))[row]
        full = frozenset(call for call in range(calls) if not skipped[call])

        def begin() -> BranchState:
            correct = self._rectified(run, row) if self.rectify else None
            return BranchState(Listed(full), Forecast(self.order), correct=correct)

        return Forecasting(network, Skipping([WHOLE], run, 1, begin))

    def _rectified(self, run: RunState, row: int) -> Correct | None:
        """What takes the fitted error off a forecast of the current branches; None if unknown."""
        name = "+".join(run.branches)
        if f"slope.{name}" not in run.calibration.arrays:
            return None
        shape = (None, run.calls_expected)
        slope = table(run.calibration, f"slope.{name}", shape)[row].tolist()
        offset = table(run.calibration, f"offset.{name}", shape)[row].tolist()
        return lambda forecast, *_: forecast * (1.0 - slope[run.call]) - offset[run.call]
