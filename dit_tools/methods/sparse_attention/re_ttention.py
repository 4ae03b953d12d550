"""Re-ttention: sparse attention that remembers what full attention added some calls ago."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.sparse_attention import Attention


@method(
    paper="arXiv:2505.22918",
    year=2025,
    title="Re-ttention: Ultra Sparse Visual Generation via Attention Statistical Reshape",
    authors="Chen, Mills, Jiang, et al.",
    needs={"blocks"},
    identity={"density": 1.0},
)
class ReTtention(Attention):
    """Attention within small windows, scaled and completed by the last full attention.

    At full calls: ``rho_i``, the share of query i's softmax mass that lies inside its window, and
    the residual ``R = full - rho softmax_window(q k) v``. At the calls between:
    ``rho softmax_window(q k) v + R``, then ``rho <- rho + drift``. The first
    ``warmup`` share of the calls are full, and one after every ``refresh``.

    Differs from the paper: windows are two-dimensional, around tiles of queries, where the paper
    has a band along rows, so that the product is computed densely in tiles without N x N scores and
    without a kernel of its own; R is kept before the output projection, which is linear, so it is
    the same; rho is kept at most 1. Text tokens see and are seen by all. A full call costs about
    twice the plain attention, for the share. Memory: per layer and branch an output more.

    The gain grows with the number of tokens: at the 16 of emoji there is none.
    """

    density: float = param(0.0625, "share of image tokens a token sees; 1 = exact", gt=0, le=1)
    warmup: float = param(0.25, "share of calls at the beginning that are full", ge=0, le=1)
    refresh: int = param(5, "full attention again after N calls", ge=1)
    drift: float = param(0.04, "growth of rho a call", ge=0, le=1)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when the blocks have no softmax attention."""
        if self.density == 1:
            return nullcontext()
        from dit_tools.nn.reattention import reuse_attention

        warmup = max(round(self.warmup * run.calls_expected), 1)
        option = f"--attention {self.info.name}"
        return reuse_attention(blocks, run, self.density, warmup, self.refresh, self.drift, option)
