"""FlowChef: every step is pulled towards the measurement, through the predicted clean image."""

from __future__ import annotations

from itertools import pairwise

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Flow
from dit_tools.core.registry import method, param
from dit_tools.core.steps import ode_step
from dit_tools.methods.restoration import Problem, Restoration


@method(
    paper="arXiv:2412.00100",
    year=2024,
    title="Steering Rectified Flow Models in the Vector Field for Controlled Image Generation",
    authors="Patel, Wen, Metaxas, Yang",
)
class FlowChef(Restoration):
    """``x <- x + pull (x0' - x0)`` with x0' the predicted image made to fit the measurement.

    With the velocity held fixed the gradient of the data term is that difference, so none of the
    network is computed (Alg. 1). ``pull`` is the share of the error that a step makes up, in place
    of a learning rate and a loss weight. The last step is left uncorrected, as in the authors' code.
    """

    pull: float = param(0.5, "share of the error made up a step; 0 = plain sampling", ge=0, le=2)

    def restore(self, problem: Problem) -> Array:
        """One guided prediction a step."""
        x, last = problem.stream.fresh(), len(problem.times) - 2
        for i, (t, s) in enumerate(pairwise(problem.times)):
            p = problem.denoise(x, t)
            gain = 1.0 if isinstance(problem.path, Flow) else problem.path.alpha(t)
            pulled = problem.corrected(p.x0, self.pull) - p.x0 if i < last and self.pull else 0.0
            x = ode_step(p, x + gain * pulled, t, s)
        return x
