"""Diversity hand-over: the base model decides the layout, its distilled student draws it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UsageError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Step, transfer
from dit_tools.methods.composition import Combine, Stage
from dit_tools.methods.composition._stitch import stitch_models, with_scale


@method(
    paper="arXiv:2503.10637",
    year=2025,
    title="Distilling Diversity and Control in Diffusion Models",
    authors="Gandikota, Bau",
    identity={"base_steps": 0},
)
class Diversity(Combine):
    """The base ``--second-model`` takes the first steps, the distilled ``--model`` the rest.

    A distilled model fixes the layout in its first step and so loses the variety of its teacher;
    one step of the teacher brings it back. The base model is guided with its own ``scale``.
    ``substeps`` lets it walk each of its long steps in several short ones, for students that
    expect latents of the right distribution there. All steps by the base: the base model alone.
    """

    takes = frozenset({"model"})

    base_steps: int = param(1, "first steps by the base model", ge=0, le=1000)
    substeps: int = param(1, "calls of the base model in each of its steps", ge=1, le=100)
    scale: float | None = param(5.0, "guidance scale of the base model; none = the same", ge=0)

    def second(self, guidance: Any) -> Any:
        """Guidance with the base model's scale."""
        return with_scale(guidance, self.scale)

    def compose(self, plan: Any) -> None:
        """Substeps need a solver that can start midway."""
        super().compose(plan)
        if self.substeps > 1 and plan.solver.own_times:
            raise UsageError(
                f"--combine diversity: --solver {plan.solver.info.name} cannot start midway",
                "leave substeps out, or use --solver euler",
            )

    def steps(self, stage: Stage, x: Array) -> Iterator[Step]:
        """Those of the solver, or Euler's for the base model where it takes substeps."""
        count = min(self.base_steps, stage.total)
        if self.substeps == 1 or count == 0:
            yield from stitch_models(stage, x, count)
            return
        for i in range(count):
            x, p = self._walk(stage, x, stage.times[i], stage.times[i + 1])
            yield Step(i, stage.total, stage.times[i + 1], x, p)
        if count == stage.total:
            return
        rest = stage.times[count:]
        for step in stage.solver.steps(stage.experts[0], x, rest, stage.noise):
            yield Step(step.index + count, stage.total, step.t, step.x, step.prediction)

    def _walk(self, stage: Stage, x: Array, t: float, s: float) -> tuple[Array, Prediction]:
        """Latents at ``s`` after equal Euler steps of the base model, and its last prediction."""
        marks = [t + (s - t) * i / self.substeps for i in range(self.substeps)] + [s]
        p = stage.experts[1](x, t)
        for now, after in zip(marks, marks[1:], strict=False):
            p = p if now == t else stage.experts[1](x, now)
            x = transfer(p, after)
        return x, p
