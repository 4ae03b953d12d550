"""NoiseDiffusion: a picture between two real ones, with its noise put right."""

from __future__ import annotations

import math
from itertools import pairwise

from dit_tools.core import spec
from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.core.steps import capped, moved
from dit_tools.methods.editing import Editing, Scene, late


@method(
    paper="arXiv:2403.08840",
    year=2024,
    title="NoiseDiffusion: Correcting Noise for Image Interpolation with Diffusion Models beyond "
    "Spherical Linear Interpolation",
    authors="Zheng, Zhang, Fang, Liu, Lian, Han",
    identity={"share": 0.0},
)
class Interpolate(Editing):
    """Between the picture and --reference: both are inverted to a level, mixed and denoised.

    The latents of both, whose noise is rarely clean, are clipped to +-bound and mixed with
    ``x = a x1 + c x2 + (mu - a) alpha X1 + (nu - c) alpha X2 + gamma sigma e`` where X are clean
    latents, ``a : c = cos : sin`` of a quarter turn by share, ``a^2 + c^2 + gamma^2 = 1``, and mu,
    nu share ``raw`` as a to c. Fresh noise gamma drowns artefacts and detail alike. share 0 is the
    picture, 1 the reference, as they are. Differs from the paper's demonstration, where raw is 1.2:
    with 1 the picture comes back as share goes to 0.
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

    def edit(self, scene: Scene) -> Array:
        """Two inversions and the way back: three predictions a step."""
        times = capped(late(scene.times, self.strength), scene.path)
        if self.share == 0:
            return scene.x0
        other = scene.references[0].x0
        if self.share == 1 or len(times) < 2:
            return scene.x0 + self.share * (other - scene.x0)
        denoise = scene.ask("source", scale=1.0)
        invert = spec.parse("inversion", "ddim:refine=0").invert
        one, two = (invert(denoise, clean, times).noise for clean in (scene.x0, other))
        x = self._mixed(scene, one, two, times[0])
        denoise = scene.ask("target", scale=self.scale)
        for t, s in pairwise(times):
            x = moved(denoise(x, t), x, t, s)
        return x

    def _mixed(self, scene: Scene, one: Array, two: Array, t: float) -> Array:
        """Latents at ``t`` from those of both pictures there."""
        if self.bound:
            one, two = (x.clip(-self.bound, self.bound) for x in (one, two))
        turn, kept = self.share * math.pi / 2, math.sqrt(1 - self.fresh**2)
        a, c = kept * math.cos(turn), kept * math.sin(turn)
        first = self.raw * a / (a + c) if a + c > 0 else self.raw * (1 - self.share)
        alpha, sigma = scene.path.alpha(t), scene.path.sigma(t)
        clean = (first - a) * scene.x0 + (self.raw - first - c) * scene.references[0].x0
        return a * one + c * two + alpha * clean + self.fresh * sigma * scene.stream.fresh()
