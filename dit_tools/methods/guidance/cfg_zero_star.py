"""CFG-Zero*: guidance for flows with an optimized unconditional scale and a silent start."""

from __future__ import annotations

from dit_tools.core.arrays import Array, sample_sum
from dit_tools.core.paths import Flow
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.guidance import COND, UNCOND, Branch, Guidance, Guide


@method(
    paper="arXiv:2503.18886",
    year=2025,
    title="CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models",
    authors="Fan, Zheng, Yeh, Liu",
    identity={"scale": 1.0, "zero_steps": 0},
)
class CfgZeroStar(Guidance):
    """``s uncond + scale (cond - s uncond)`` with ``s = <cond, uncond> / |uncond|^2`` per sample.

    The first evaluations give velocity 0, since an undertrained velocity near pure noise is worse
    than none (Alg. 1). On a variance-preserving path, where that has no meaning, they are plain
    evaluations; differs from diffusers, which zeroes the noise prediction there.
    """

    scale: float = param(4.0, "1 = the conditional prediction alone", ge=0)
    zero_steps: int = param(1, "evaluations without motion; about 4 % of them", ge=0)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The condition alone when the scale is 1."""
        return (COND,) if self.scale == 1 else (COND, UNCOND)

    def begin(self, run: RunState) -> Guide:
        """A guide that counts its evaluations."""
        done = 0

        def guide(x, t):
            nonlocal done
            done += 1
            silent = done <= self.zero_steps
            cond, *rest = yield (COND,) if silent or self.scale == 1 else (COND, UNCOND)
            if silent and isinstance(cond.path, Flow):
                return Prediction(cond.raw * 0.0, "flow", x, t, cond.path)
            if self.scale == 1:
                return cond
            (negative,) = rest or (yield (UNCOND,))
            uncond = negative.raw * _best_scale(cond.raw, negative.raw)
            return cond.with_raw(uncond + self.scale * (cond.raw - uncond))

        return guide


def _best_scale(cond: Array, uncond: Array) -> Array:
    """The ``s`` that brings ``s uncond`` nearest to ``cond``, per sample."""
    return sample_sum(cond * uncond) / (sample_sum(uncond * uncond) + 1e-8)
