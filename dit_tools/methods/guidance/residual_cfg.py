"""Residual classifier-free guidance: a negative that costs one network call, or none."""

from __future__ import annotations

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.guidance import COND, UNCOND, Branch, Guidance, Guide


@method(
    paper="arXiv:2312.12491",
    year=2023,
    title="StreamDiffusion: A Pipeline-level Solution for Real-time Interactive Generation",
    authors="Kodaira, Xu, Hazama, et al.",
    identity={"scale": 1.0},
)
class ResidualCfg(Guidance):
    """Guide away from a fixed image: the one that the unconditional prediction began with.

    The negative is the virtual noise ``n = (x - alpha x0) / sigma`` whose clean reading is ``x0``,
    so that ``x0_guided = x0 + scale (x0_cond - x0)``. onetime takes x0 from the unconditional
    prediction of the first evaluation (one more call an image), self takes latents of zero, the
    noise as its own negative (no more calls). Made for few steps and for scales well below those
    of plain guidance (1.2 to 2): over a long run x0 grows stale, which refresh cures at a price.
    Differs from the paper: no moderating factor, and the noise is that of the path at hand instead
    of an update by consistency steps.
    """

    scale: float = param(1.5, "1 = the conditional prediction alone", ge=0)
    mode: str = param("onetime", "where the negative comes from", choices=("onetime", "self"))
    refresh: int = param(0, "onetime: ask again every N evaluations; 0 = never", ge=0)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The condition alone when the scale is 1, and in mode self."""
        return (COND,) if self.scale == 1 or self.mode == "self" else (COND, UNCOND)

    @property
    def alternates(self) -> bool:
        """The unconditional branch comes and goes."""
        return self.refresh > 0 and self.mode == "onetime" and self.scale != 1

    def begin(self, run: RunState) -> Guide:
        """A guide that remembers the negative's clean latents."""
        negative: Array = None
        done = -1

        def guide(x, t):
            nonlocal negative, done
            done += 1
            if self.scale == 1:
                (cond,) = yield (COND,)
                return cond
            if self.mode == "self":
                (cond,) = yield (COND,)
                return cond.with_x0(self.scale * cond.x0)
            if negative is None or (self.refresh and done % self.refresh == 0):
                cond, uncond = yield COND, UNCOND
                negative = uncond.x0
            else:
                (cond,) = yield (COND,)
            return cond.with_x0(negative + self.scale * (cond.x0 - negative))

        return guide
