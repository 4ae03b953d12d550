"""NoiseDiffusion: an image between two real ones, with its noise put right."""

from __future__ import annotations

import math
from itertools import pairwise

from dit_tools.core import spec
from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.core.steps import cap_times, ode_step
from dit_tools.methods.editing import EditContext, Editing, last_times


@method(
    paper="arXiv:2403.08840",
    year=2024,
    title="NoiseDiffusion: Correcting Noise for Image Interpolation with Diffusion Models beyond "
    "Spherical Linear Interpolation",
    authors="Zheng, Zhang, Fang, Liu, Lian, Han",
    identity={"share": 0.0},
)
class Interpolate(Editing):
    """Between the image and --reference: both are inverted to a level, mixed and denoised.

    The latents of both, whose noise is rarely clean, are clipped to +-bound and mixed with
    ``x = a x1 + c x2 + (mu - a) alpha X1 + (nu - c) alpha X2 + gamma sigma e`` where X are clean
    latents, ``a : c = cos : sin`` of a quarter turn by share, ``a^2 + c^2 + gamma^2 = 1``, and mu,
    nu share ``raw`` as a to c. Fresh noise gamma drowns artefacts and detail alike. share 0 is the
    image, 1 the reference, as they are. Differs from the paper's demonstration, where raw is 1.2:
    with 1 the image comes back as share goes to 0.
    """

    needs_prompt = False
    references = (1, 1)

    guidance_scale = "scale"

    share: float = param(0.5, "weight of the reference; 0 = the image, 1 = the reference", ge=0, le=1)
    strength: float = param(0.6, "share of the steps that are run", ge=0, le=1)
    bound: float = param(2.0, "largest value of inverted latents; 0 = no bound", ge=0, le=100)
    fresh: float = param(0.0, "fresh noise, 0 = none", ge=0, le=1)
    raw: float = param(1.0, "factor on the clean latents; 1 = unchanged", ge=0, le=2)
    scale: float = param(1.0, "guidance towards the prompt", ge=0)

    def edit(self, context: EditContext) -> Array:
        """Two inversions and the way back: three predictions a step."""
        times = cap_times(last_times(context.times, self.strength), context.path)
        if self.share == 0:
            return context.x0
        other = context.references[0].x0
        if self.share == 1 or len(times) < 2:
            return context.x0 + self.share * (other - context.x0)
        denoise = context.ask("source", scale=1.0)
        invert = spec.parse("inversion", "ddim:refine=0").invert
        one, two = (invert(denoise, clean, times).noise for clean in (context.x0, other))
        x = self._mixed(context, one, two, times[0])
        denoise = context.ask("target", scale=self.scale)
        for t, s in pairwise(times):
            x = ode_step(denoise(x, t), x, t, s)
        return x

    def _mixed(self, context: EditContext, one: Array, two: Array, t: float) -> Array:
        """Latents at ``t`` from those of both images there."""
        if self.bound:
            one, two = (x.clip(-self.bound, self.bound) for x in (one, two))
        turn, kept = self.share * math.pi / 2, math.sqrt(1 - self.fresh**2)
        a, c = kept * math.cos(turn), kept * math.sin(turn)
        first = self.raw * a / (a + c) if a + c > 0 else self.raw * (1 - self.share)
        alpha, sigma = context.path.alpha(t), context.path.sigma(t)
        clean = (first - a) * context.x0 + (self.raw - first - c) * context.references[0].x0
        return a * one + c * two + alpha * clean + self.fresh * sigma * context.stream.fresh()
