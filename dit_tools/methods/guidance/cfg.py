"""Classifier-free guidance, with a limited interval and two ways to tame its size."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.guidance import COND, UNCOND, Branch, Guidance, Guide
from dit_tools.methods.guidance._norms import match_norm, rescale_std


@method(
    paper="arXiv:2207.12598",
    year=2022,
    title="Classifier-Free Diffusion Guidance",
    authors="Ho, Salimans",
    identity={"scale": 1.0},
)
class Cfg(Guidance):
    """``uncond + scale (cond - uncond)``, in the network's own output.

    The scale is Imagen's: 1 is the conditional prediction alone and costs one network call. Outside
    the interval of t nothing is guided (Kynkaanniemi et al. 2024, arXiv:2404.07724); rescale moves
    the result to the conditional's standard deviation (Lin et al. 2023, arXiv:2305.08891,
    Eq. 14-16); norm gives it the conditional's norm as Lumina2 (row) and Qwen-Image (patch) do.
    """

    scale: float = param(4.0, "1 = the conditional prediction alone", ge=0)
    interval: tuple[float, float] = param((0.0, 1.0), "guide only at these times", ge=0, le=1)
    rescale: float = param(0.0, "share of the standard deviation restored", ge=0, le=1)
    norm: str = param("none", "restore the conditional's norm", choices=("none", "row", "patch", "sample"))

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The condition alone when the scale is 1."""
        return (COND,) if self.scale == 1 else (COND, UNCOND)

    def begin(self, run: RunState) -> Guide:
        """A guide without state."""
        low, high = self.interval

        def guide(x, t):
            if self.scale == 1 or not low <= t <= high:
                (cond,) = yield (COND,)
                return cond
            cond, uncond = yield COND, UNCOND
            guided = uncond.raw + self.scale * (cond.raw - uncond.raw)
            if self.rescale:
                guided = rescale_std(guided, cond.raw, self.rescale)
            if self.norm != "none":
                guided = match_norm(guided, cond.raw, self.norm)
            return cond.with_raw(guided)

        return guide
