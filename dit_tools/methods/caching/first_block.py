"""First-block cache: reuse what the other blocks add while the first one adds the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dit_tools.core.forecast import Forecast
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable, geometric_grid
from dit_tools.methods.caching._per_stack import BranchState, attach
from dit_tools.methods.caching._policy import Gate


@method(
    paper="arXiv:2411.19108",
    year=2024,
    title="Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model",
    authors="Liu, Zhang, Wang, et al.",
    needs={"stack"},
    identity={"threshold": 0.0},
)
class FirstBlock(Cache):
    """Compute block 1; if it adds the same as at the last full call, let the rest do so too.

    With ``r`` what block 1 adds and ``r'`` the same at the last full call, the other blocks are
    skipped when ``mean|r - r'| / mean|r'| < threshold``; the output is then what leaves block 1
    plus what the others added at the last full call, or with ``order`` what they would add had
    that gone on changing as between the full calls before. FBCache of ParaAttention (Cheng 2024)
    has no paper of its own; it follows TeaCache, cited here, which looks at the timestep embedding.

    The error is one number for the whole network call: all images of a batch and all branches
    that share the call are skipped together, so an image may depend on its batch. A network of
    one block is never skipped. The last step is always computed in full.
    """

    dial: ClassVar[Tunable] = Tunable("threshold", geometric_grid(0.004, 2.0))

    threshold: float = param(0.05, "relative change of block 1 to skip below; 0 = exact", ge=0)
    warmup: int = param(1, "calls computed in full at the beginning", ge=1)
    max_skips: int = param(0, "calls skipped in a row at most; 0 = no limit", ge=0)
    order: int = param(0, "order of the forecast of what the others add; 0 = reuse", ge=0, le=4)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when there are no blocks."""

        def begin() -> BranchState:
            gate = Gate(self.threshold, self.max_skips, Forecast(0), residual=True, against_forecast=True)
            return BranchState(gate, Forecast(self.order), relative="first")

        return attach(blocks, run, self.warmup, begin, self.info.name)
