"""Adaptive guidance: stop asking for the unconditional prediction once it says the same."""

from __future__ import annotations

from dit_tools.core.arrays import Array, namespace, sample_sum
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.guidance import COND, UNCOND, Branch, Guidance, Guide


@method(
    paper="arXiv:2312.12487",
    year=2023,
    title="Adaptive Guidance: Training-free Acceleration of Conditional Diffusion Models",
    authors="Castillo, Kohler, Perez, Perez, Pumarola, Ghanem, Arbelaez, Thabet",
    identity={"scale": 1.0},
)
class Adaptive(Guidance):
    """Classifier-free guidance until the cosine of both noise predictions passes gamma.

    Decided per sample and for good: a sample that has converged takes its conditional prediction
    alone from the next evaluation on, whatever else is in the batch; the network call is saved
    once all samples of the batch have. The cosine is taken between noise predictions, the space of
    the paper's 0.991, whatever the network predicts.
    """

    scale: float = param(4.0, "1 = the conditional prediction alone", ge=0)
    gamma: float = param(0.991, "cosine that ends guidance; above 1 = never", ge=-1, le=2)
    patience: int = param(1, "evaluations in a row that must pass gamma", ge=1)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The condition alone when the scale is 1."""
        return (COND,) if self.scale == 1 else (COND, UNCOND)

    def begin(self, run: RunState) -> Guide:
        """A guide that remembers how often each sample has passed."""
        passed: list[int] = []

        def guide(x, t):
            nonlocal passed
            passed = passed or [0] * x.shape[0]
            done = [count >= self.patience for count in passed]
            if self.scale == 1 or all(done):
                (cond,) = yield (COND,)
                return cond
            cond, uncond = yield COND, UNCOND
            cosines = _cosines(cond.eps, uncond.eps)
            passed = [
                count if over else (count + 1 if cosine >= self.gamma else 0)
                for count, over, cosine in zip(passed, done, cosines, strict=True)
            ]
            guided = uncond.raw + self.scale * (cond.raw - uncond.raw)
            return cond.with_raw(_pick(done, cond.raw, guided))

        return guide


def _cosines(a: Array, b: Array) -> list[float]:
    norms = (sample_sum(a * a) * sample_sum(b * b)) ** 0.5
    return (sample_sum(a * b) / norms.clip(1e-24, None)).reshape(-1).tolist()


def _pick(first: list[bool], a: Array, b: Array) -> Array:
    """Row i of ``a`` where ``first[i]``, else of ``b``."""
    if not any(first):
        return b
    xp = namespace(a)
    return xp.stack([a[i] if mine else b[i] for i, mine in enumerate(first)])
