"""SDEdit: noise the image up to a point, and denoise it with the new prompt."""

from __future__ import annotations

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.registry import method, param
from dit_tools.methods.editing import EditContext, Editing, add_noise, last_times


@method(
    paper="arXiv:2108.01073",
    year=2021,
    title="SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations",
    authors="Meng, He, Song, Song, Wu, Zhu, Ermon",
    identity={"strength": 0.0},
)
class Img2Img(Editing):
    """SDEdit: adds noise to the image up to a level and samples from there.

    ``x_t = alpha x0 + sigma noise``, then the model's own sampler from t on.

    At strength 1 it is ``dit generate`` with the same seed. Structure and colours survive as far as
    strength is low, wherever they are; give a mask to keep the rest. Half the calls of plain
    inversion, which keeps 1 dB more for the same targets on the built-in model (benchmarks/results/editing.md).
    """

    solves = True

    strength: float = param(0.6, "share of the steps that are run", ge=0, le=1)

    @property
    def one_pass(self) -> bool:
        """As the solver goes."""
        return True

    def edit(self, context: EditContext) -> Array:
        """One guided prediction a step, as the solver has it."""
        times = last_times(context.times, self.strength)
        if len(times) < 2:
            return context.x0
        solver, noise = context.solver, context.stream.fresh()
        if solver.own_times and times != context.times:
            raise UnsupportedError(
                f"--solver {solver.info.name}: it keeps its own times and cannot start midway", "use --solver euler"
            )
        whole = len(times) == len(context.times)
        x = noise * 1.0 if whole else add_noise(context, times[0], noise)
        for step in solver.steps(context.ask("target"), x, times, context.stream):
            x = step.x
        return x
