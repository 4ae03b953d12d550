"""FlowEdit: a direct path from the image to the edited one, without inversion."""

from __future__ import annotations

from itertools import pairwise

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Denoise, ode_step
from dit_tools.methods.editing import EditContext, Editing, add_noise, last_times


@method(
    paper="arXiv:2412.08629",
    year=2024,
    title="FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models",
    authors="Kulikov, Kleiner, Huberman-Spiegelglas, Michaeli",
    identity={"strength": 0.0},
)
class FlowEdit(Editing):
    """Edits without inversion: follows the difference of the velocities of the target and the source prompt.

    ``z += (s - t) (v(z + x_t - x0, target) - v(x_t, source))`` with fresh noise in each x_t.

    Alg. 1, from the last ``strength`` of the steps on; in the last ``finish`` of them the target is
    sampled as usual. The same prompt with equal scales gives the image itself, bit for bit. On a
    variance-preserving path the difference of the two DDIM steps takes the place of that of the
    velocities. Two guided predictions a step and average.
    """

    guidance_scale = "target_scale"

    strength: float = param(0.85, "share of the steps that are run", ge=0, le=1)
    source_scale: float = param(1.0, "guidance towards the source prompt", ge=0)
    target_scale: float = param(3.0, "guidance towards the target prompt", ge=0)
    average: int = param(1, "number of noise samples averaged per step", ge=1, le=100)
    finish: float = param(0.0, "fraction of the steps that are plain sampling at the end", ge=0, le=1)

    @property
    def one_pass(self) -> bool:
        """With one noise a step."""
        return self.average == 1

    def edit(self, context: EditContext) -> Array:
        """The source's latents plus what the two prompts differ by."""
        times = last_times(context.times, self.strength)
        if len(times) < 2:
            return context.x0
        plain = min(len(last_times(context.times, self.finish)), len(times)) - 1
        source = context.ask("source", scale=self.source_scale)
        target = context.ask("target", scale=self.target_scale)
        change = context.x0 * 0.0
        turn = len(times) - 1 - plain
        for t, s in pairwise(times[: turn + 1]):
            steps = [self._step(context, source, target, change, t, s) for _ in range(self.average)]
            change = sum(steps[1:], steps[0]) / self.average
            if context.mask is not None:
                change = change * context.mask
        if not plain:
            return context.x0 + change
        rest = times[turn:]
        x = add_noise(context, rest[0], context.stream.fresh()) + change
        for t, s in pairwise(rest):
            x = ode_step(target(x, t), x, t, s)
        return x

    def _step(self, context: EditContext, source: Denoise, target: Denoise, change: Array, t: float, s: float) -> Array:
        """How far both are apart at ``s``, from ``change`` at ``t``."""
        from_source = add_noise(context, t, context.stream.fresh())
        from_target = from_source + change
        ahead = ode_step(target(from_target, t), from_target, t, s)
        return ahead - ode_step(source(from_source, t), from_source, t, s)
