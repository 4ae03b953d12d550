"""Encoder propagation: the leading blocks are computed at key calls only, the rest always."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dit_tools.core.forecast import FORMS, Forecast
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable
from dit_tools.methods.caching._per_stack import BranchState, attach
from dit_tools.methods.caching._policy import Interval, Listed, Policy

PUBLISHED = (0, 1, 2, 3, 5, 10, 15, 25, 35)  # key calls of 50


@method(
    paper="arXiv:2312.09608",
    year=2023,
    title="Faster Diffusion: Rethinking the Role of the Encoder for Diffusion Model Inference",
    authors="Li, Hu, van de Weijer, et al.",
    needs={"blocks"},
    identity={"share": 0.0},
)
class EncoderPropagation(Cache):
    """Reuse what the leading blocks add at key calls; compute the trailing blocks at every call.

    The paper skips the encoder of a U-Net. A transformer has none: its leading blocks take that
    part, and what they add to their input is reused, so that the current latents still enter.
    The trailing blocks see the current time. ``keys=early`` takes the paper's key calls, dense at
    the beginning and scaled to the number of calls; ``even`` every ``interval``-th. Speed is
    bounded by the trailing blocks. Differs from the paper: no injected noise, no parallel calls.
    """

    dial: ClassVar[Tunable] = Tunable("interval", tuple(range(1, 13)))

    share: float = param(0.5, "leading blocks, as a fraction of all blocks; 0 = exact", ge=0, le=1)
    interval: int = param(3, "with keys=even: leading blocks every N calls; 1 = exact", ge=1)
    keys: str = param("even", "which calls compute all blocks", choices=("even", "early"))
    order: int = param(0, "degree of the forecast of what they add; 0 = reuse", ge=0, le=4)
    form: str = param("taylor", "taylor as published, newton through all nodes", choices=FORMS)
    warmup: int = param(2, "calls computed in full at the beginning", ge=1)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when there are no blocks."""
        policy: Policy = Interval(self.interval)
        if self.keys == "early":
            scale = run.calls_expected / 50
            policy = Listed(frozenset(round(key * scale) for key in PUBLISHED))

        def begin() -> BranchState:
            return BranchState(policy, Forecast(self.order, self.form), relative="input")

        leading = round(self.share * len(blocks))
        return attach(blocks, run, self.warmup, begin, self.info.name, leading)
