"""Direct inversion: the source's own trajectory is kept, and put back at every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dit_tools.core.arrays import Array, concat
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Denoise, Inverted, Step, Stepper, ode_step
from dit_tools.methods.inversion import Inversion
from dit_tools.methods.inversion.ddim import DdimInversion


@method(
    paper="arXiv:2310.01506",
    year=2023,
    title="Direct Inversion: Boosting Diffusion-based Editing with 3 Lines of Code",
    authors="Ju, Zeng, Bian, Liu, Xu",
)
class Direct(Inversion):
    """DDIM inversion whose latents are stored; the way back corrects its source row by them.

    Row 0 of the batch is the source: after every step it gets the offset to the stored latents
    (Alg. 1) and so ends on the image, bit for bit. Other rows are edits: they start from the same
    noise and share of the offset what ``share`` says, 0 in the paper. One network call a step.
    """

    exact = True
    rows = 2
    carries = ("trajectory",)

    share: float = param(0.0, "fraction of the source's correction that the edit gets too", ge=0, le=1)

    def invert(self, denoise: Denoise, x0: Array, times: Sequence[float], noise: Any = None) -> Inverted:
        """One network call a step; ``trajectory`` (steps, C, h, w) runs from noise to data."""
        passed = DdimInversion(refine=0).trajectory(denoise, x0, times)
        return Inverted(passed[-1], {"trajectory": concat(passed[-2::-1])})

    def back(self, state: Mapping[str, Array]) -> Stepper:
        """DDIM with the stored source as first row."""
        return Corrected(state["trajectory"], self.share)


class Corrected(Stepper):
    """DDIM on a batch whose first row is held to ``trajectory`` (steps, C, h, w)."""

    def __init__(self, trajectory: Array, share: float):
        self.trajectory, self.share = trajectory, share

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """One network call a step."""
        total = len(times) - 1
        for i in range(total):
            p = denoise(x, times[i])
            x = ode_step(p, x, times[i], times[i + 1])
            source = self.trajectory[i : i + 1]
            edits = x[1:]
            if self.share:
                edits = edits + self.share * (source - x[:1])
            x = concat([source, edits]) if len(x) > 1 else source
            yield Step(i, total, times[i + 1], x, p)
