"""Inner Loop Feedback: a trained block turns one step's features into those of the next."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dit_tools.core.errors import InputError
from dit_tools.core.forecast import Forecast
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable
from dit_tools.methods.caching._per_stack import BranchState, Correct, attach, check_blocks
from dit_tools.methods.caching._policy import Interval
from dit_tools.models.calibration import CALIBRATION, table


@method(
    paper="arXiv:2501.13107",
    year=2025,
    title="Accelerate High-Quality Diffusion Models with Inner Loop Feedback",
    authors="Gwilliam, Cai, Wu, Shrivastava, Cheng",
    needs={"blocks"},
    identity={"interval": 1},
)
class Ilf(Cache):
    """At skipped calls, a small trained module takes the part of the leading blocks.

    With ``h`` what leaves the leading blocks, forecast as their input now plus what they added at
    the last full call, the trailing blocks get ``h + gamma (F(h, t) - h)``. ``F`` is a copy of the
    last leading block, ``gamma`` a number per channel that starts at zero, so that training starts
    from plain reuse; ``dit calibrate`` trains both towards the full network's outputs, which stays
    as it is (Gwilliam et al. 2025). ``calibration=untrained`` is plain reuse. Speed is bounded by
    the trailing blocks and one for F. Differs from the paper, whose code is not public: the current
    latents enter at skipped calls too, and the features are fed back where they left.
    """

    calibrated_by: ClassVar[tuple[str, ...]] = ("share", "interval")
    words: ClassVar[frozenset[str]] = frozenset({"none", "untrained"})
    dial: ClassVar[Tunable | None] = None

    share: float = param(0.75, "leading blocks, as a fraction of all blocks", gt=0, le=1)
    interval: int = param(2, "leading blocks every N calls; 1 = exact", ge=1)
    warmup: int = param(1, "calls computed in full at the beginning", ge=1)
    calibration: str = param("auto", CALIBRATION + "; or untrained")

    def prepare(self, model: Any, plan: Any, run: RunState) -> None:
        """Find the trained module, where the parameters have a use for it."""
        if self.interval == 1:
            run.path = model.path
        else:
            super().prepare(model, plan, run)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when there are no blocks, InputError for a module of others."""
        check_blocks(blocks, self.info.name)
        leading = max(round(self.share * len(blocks)), 1)
        interval = 1 if self.calibration == "none" else self.interval
        correct = _correction(run, blocks[leading - 1]) if interval > 1 else None

        def begin() -> BranchState:
            return BranchState(Interval(interval), Forecast(0), relative="input", correct=correct)

        return attach(blocks, run, self.warmup, begin, self.info.name, leading)


def _correction(run: RunState, block: Any) -> Correct | None:
    """The trained module at work; None without one."""
    if run.calibration is None:
        return None
    if run.calibration.module is not None:
        return run.calibration.module
    from dit_tools.nn.feedback import Feedback

    weights = {k: v for k, v in run.calibration.arrays.items() if k != "times"}
    made = Feedback.of(block, len(table(run.calibration, "gamma", (None,))))
    try:
        made.load(weights)
    except ValueError as error:
        raise InputError("the calibration does not fit the blocks", "make it again") from error
    return made.to(next(block.module.parameters()).device)
