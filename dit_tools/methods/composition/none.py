"""One model, one prompt: nothing is combined."""

from __future__ import annotations

from collections.abc import Iterator

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method
from dit_tools.core.steps import Step
from dit_tools.methods.composition import Combine, Stage


@method(identity={})
class NoCombine(Combine):
    """The model alone."""

    def steps(self, stage: Stage, x: Array) -> Iterator[Step]:
        """Those of the solver."""
        return stage.solver.steps(stage.experts[0], x, stage.times, stage.noise)
