"""Inpainting by latent blending, with the resampling of RePaint."""

from __future__ import annotations

from itertools import pairwise

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.core.steps import ode_step
from dit_tools.methods.editing import EditContext, Editing, add_noise, last_times


@method(
    paper="arXiv:2201.09865",
    year=2022,
    title="RePaint: Inpainting using Denoising Diffusion Probabilistic Models",
    authors="Lugmayr, Danelljan, Romero, Yu, Timofte, Van Gool",
    identity={"strength": 0.0},
)
class Inpaint(Editing):
    """After every step what lies outside the mask becomes the noised image again (Eq. 8).

    With resample > 1 each step is taken back and repeated (Alg. 1), which makes the inside fit the
    outside better, at as many times the cost. DDIM steps, Euler on a flow. Strength 1 starts from
    noise inside the mask, less keeps some of what was there.
    """

    needs_mask = True

    strength: float = param(0.9, "share of the steps that are run", ge=0, le=1)
    resample: int = param(1, "repetitions of each step (RePaint); 1 = none", ge=1, le=50)

    @property
    def one_pass(self) -> bool:
        """Where no step is repeated."""
        return self.resample == 1

    def edit(self, context: EditContext) -> Array:
        """``resample`` guided predictions a step, one in the last."""
        times = last_times(context.times, self.strength)
        if len(times) < 2:
            return context.x0
        assert context.mask is not None, "the run asks for a mask"
        noise, denoise = context.stream.fresh(), context.ask("target")
        x = add_noise(context, times[0], noise)
        for t, s in pairwise(times):
            for again in range(self.resample if s > 0 else 1):
                if again:
                    x = self._renoised(context, x, t, times[times.index(t) + 1])
                x = ode_step(denoise(x, t), x, t, s)
                x = context.mask * x + (1 - context.mask) * add_noise(context, s, noise)
        return x

    def _renoised(self, context: EditContext, x: Array, t: float, s: float) -> Array:
        """``x`` at ``s`` taken back to ``t`` by the forward process."""
        keep = context.path.alpha(t) / context.path.alpha(s)
        fresh = max(context.path.sigma(t) ** 2 - (keep * context.path.sigma(s)) ** 2, 0.0) ** 0.5
        return keep * x + fresh * context.stream.fresh()
