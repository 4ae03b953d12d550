"""Adaptive projected guidance: large scales without saturation."""

from __future__ import annotations

from dit_tools.core.arrays import Array, sample_sum
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.guidance import COND, UNCOND, Branch, Guidance, Guide


@method(
    paper="arXiv:2410.02416",
    year=2024,
    title="Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models",
    authors="Sadat, Hilliges, Weber",
    identity={"scale": 1.0},
)
class Apg(Guidance):
    """``cond + (scale - 1) (orthogonal + eta parallel)`` of the clean predictions.

    The difference of the conditional and unconditional x0 gets momentum, is limited in norm, and
    is split into parts parallel and orthogonal to the conditional x0; the parallel part, which
    saturates colours, is weighed by eta. State: the running difference of the run. eta and
    momentum default to the paper's values, norm_threshold to that of diffusers.
    """

    scale: float = param(4.0, "1 = the conditional prediction alone", ge=0)
    eta: float = param(0.0, "weight of the parallel part; 1 = keep it, as CFG does", ge=0, le=1)
    norm_threshold: float = param(15.0, "longest difference per image; 0 = any", ge=0)
    momentum: float = param(-0.5, "weight of earlier differences; below 0 repels", ge=-1, le=1)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The condition alone when the scale is 1."""
        return (COND,) if self.scale == 1 else (COND, UNCOND)

    def begin(self, run: RunState) -> Guide:
        """A guide with a running difference of its own."""
        running: Array = 0.0

        def guide(x, t):
            nonlocal running
            if self.scale == 1:
                (cond,) = yield (COND,)
                return cond
            cond, uncond = yield COND, UNCOND
            data = cond.x0
            running = data - uncond.x0 + self.momentum * running
            update = _projected(_limited(running, self.norm_threshold), data, self.eta)
            return cond.with_x0(data + (self.scale - 1) * update)

        return guide


def _limited(diff: Array, threshold: float) -> Array:
    if threshold <= 0:
        return diff
    norm = sample_sum(diff * diff) ** 0.5
    return diff * (threshold / norm.clip(threshold, None))


def _projected(diff: Array, onto: Array, eta: float) -> Array:
    """``diff`` with its part parallel to ``onto`` multiplied by ``eta``, per sample."""
    share = sample_sum(diff * onto) / sample_sum(onto * onto).clip(1e-24, None)
    return diff - (1 - eta) * share * onto
