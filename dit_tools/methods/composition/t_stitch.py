"""Trajectory stitching: a small model draws the outline, the large one the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Step
from dit_tools.methods.composition import Combine, Stage
from dit_tools.methods.composition._stitch import stitch_models, with_scale


@method(
    paper="arXiv:2402.14167",
    year=2024,
    title="T-Stitch: Accelerating Sampling in Pre-Trained Diffusion Models with Trajectory Stitching",
    authors="Pan, Zhuang, Huang, Nie, Yu, Xiao, Cai, Anandkumar",
    identity={"share": 0.0},
)
class TStitch(Combine):
    """The small ``--second-model`` takes the first steps, ``--model`` the rest.

    With a small model that costs 1/c of the large one, a run is ``1 / (share / c + 1 - share)``
    times as fast; the paper finds 40 % of the steps free. The steps are counted, ``floor(share *
    steps)``, or those that begin above ``until``: on a shifted schedule the two differ. share=1
    is the small model alone. The two must share autoencoder and noise path.
    """

    takes = frozenset({"model"})

    share: float = param(0.4, "share of the steps by the small model", ge=0, le=1)
    until: float | None = param(None, "in place of share: by the small model above this t", ge=0, le=1)
    scale: float | None = param(None, "guidance scale of the small model; none = the same", ge=0)

    def second(self, guidance: Any) -> Any:
        """The same, with the small model's own scale."""
        return with_scale(guidance, self.scale)

    def steps(self, stage: Stage, x: Array) -> Iterator[Step]:
        """Those of the solver."""
        return stitch_models(stage, x, self.small(stage.times))

    def small(self, times: tuple[float, ...]) -> int:
        """How many steps the small model takes."""
        if self.until is not None:
            return sum(t > self.until for t in times[:-1])
        return int(self.share * (len(times) - 1) + 1e-9)
