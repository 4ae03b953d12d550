"""The block cache of Elastic DiT: blocks that matter little are reused one by one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.forecast import Forecast, relative_error
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable, geometric_grid
from dit_tools.methods.caching._per_module import Unit, attach_blocks
from dit_tools.methods.caching._policy import Policy


@method(
    paper="arXiv:2602.13993",
    year=2026,
    title="Elastic Diffusion Transformer",
    authors="Wang, Lai, Chen, Guo, Guo, Li, Yue, Guo",
    needs={"blocks"},
    identity={"threshold": 0.0},
)
class EDit(Cache):
    """Reuse what a block added at its last computation while that block matters little.

    Each block decides for itself, at most ``max_skips`` times in a row, in the later part of a run
    (Wang et al. 2026, Sec. 3). In the paper a trained router says how much a block matters, and a
    block that it is barely for is reused. Differs from the paper: models without such routers have
    this cache too. How much a block matters is measured as it runs: ``gate=change`` reuses it while
    what enters has changed by less than ``threshold`` since then, ``gate=size`` while it added less
    than ``threshold`` of what entered it (both mean absolute values, over the whole call). The
    routers' block skipping and narrower MLPs need training and are not part of this.
    """

    dial: ClassVar[Tunable] = Tunable("threshold", geometric_grid(0.002, 1.0))

    threshold: float = param(0.05, "relative size or change to reuse below; 0 = exact", ge=0)
    gate: str = param("change", "what is measured of a block", choices=("change", "size"))
    max_skips: int = param(10, "times in a row that a block is reused; 0 = no limit", ge=0)
    start: float = param(0.3, "share of calls computed in full at the beginning", ge=0, le=1)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when there are no blocks."""

        def begin(index: int) -> Unit:
            return Unit(WeakBlocks(self.threshold, self.max_skips, self.gate == "size"), Forecast(0))

        warmup = max(round(self.start * run.calls_expected), 1)
        return attach_blocks(blocks, run, warmup, begin, self.info.name)


@dataclass
class WeakBlocks(Policy):
    """Skip a block of little weight: one that adds little, or that little changes for."""

    threshold: float
    max_skips: int
    by_size: bool
    entered: Array = None  # at the last computation
    size: float = 0.0  # of what it added then, relative to what entered

    def before(self, call: int, skipped: int, entered: Array) -> bool:
        """Whether the measure is below the threshold; a NaN is not."""
        if self.max_skips and skipped >= self.max_skips:
            return False
        measure = self.size if self.by_size else relative_error(entered, self.entered)
        return measure < self.threshold

    def after(self, call: int, entered: Array, left: Array, skipped: int) -> bool:
        """Never: it is decided before."""
        return False

    def learn(self, call: int, entered: Array, left: Array) -> None:
        """Keep what entered, and how much was added to it."""
        if self.by_size:
            self.size = relative_error(entered + left, entered)
        else:
            self.entered = entered
