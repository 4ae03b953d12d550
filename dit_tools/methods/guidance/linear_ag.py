"""Linear adaptive guidance: guess the unconditional prediction from what was seen before."""

from __future__ import annotations

from dit_tools.core.arrays import Array, sample_sum
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
class LinearAg(Guidance):
    """Classifier-free guidance that asks for the unconditional prediction every Nth time only.

    In between, ``d = uncond - cond`` is guessed as ``a d_asked + b (cond - cond_asked)`` from the
    last evaluation that did ask, a linear function of earlier predictions as LinearAG is. Differs
    from the paper: its weights come from a regression over stored runs of one model, step count
    and scale; here a and b are fitted per sample within the run, from one asking evaluation to the
    next, and drawn towards 1 and 0 by ``ridge``. With ``every=1`` it is plain guidance. A cache
    that is used along starts again whenever the branches change, so that both together save little.
    """

    scale: float = param(4.0, "1 = the conditional prediction alone", ge=0)
    every: int = param(2, "ask for the unconditional every N evaluations; 1 = always", ge=1)
    warmup: int = param(4, "evaluations at the beginning that ask for it", ge=1)
    ridge: float = param(0.01, "how strongly the fit is drawn to reuse; share of its size", ge=0)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The condition alone when the scale is 1."""
        return (COND,) if self.scale == 1 else (COND, UNCOND)

    @property
    def alternates(self) -> bool:
        """The unconditional branch comes and goes."""
        return self.every > 1 and self.scale != 1

    def begin(self, run: RunState) -> Guide:
        """A guide with a memory of the last evaluation that asked, and of the fit."""
        fit = _Fit(self.ridge)
        done = -1

        def guide(x, t):
            nonlocal done
            done += 1
            if self.scale == 1:
                (cond,) = yield (COND,)
                return cond
            late = done - self.warmup
            if late < 0 or late % self.every == self.every - 1:
                cond, uncond = yield COND, UNCOND
                fit.learn(cond.raw, uncond.raw - cond.raw)
                return cond.with_raw(uncond.raw + self.scale * (cond.raw - uncond.raw))
            (cond,) = yield (COND,)
            return cond.with_raw(cond.raw + (1 - self.scale) * fit.guess(cond.raw))

        return guide


class _Fit:
    """``d = a d_asked + b (cond - cond_asked)`` per sample, by least squares with a prior."""

    def __init__(self, ridge: float):
        self._ridge = ridge
        self._cond: Array = None
        self._gap: Array = None  # never a guess: guesses from guesses grow without bound
        self._a: Array = 1.0
        self._b: Array = 0.0

    def learn(self, cond: Array, gap: Array) -> None:
        """Fit to a gap that was seen, and remember it."""
        if self._cond is not None:
            self._a, self._b = self._solved(gap, cond - self._cond)
        self._cond, self._gap = cond, gap

    def guess(self, cond: Array) -> Array:
        """The gap expected next to ``cond``."""
        return self._a * self._gap + self._b * (cond - self._cond)

    def _solved(self, gap: Array, move: Array) -> tuple[Array, Array]:
        """Weights that minimise ``|gap - a before - b move|^2 + r ((a - 1)^2 + b^2)``."""
        before = self._gap
        rest = gap - before
        aa, ab, bb = sample_sum(before * before), sample_sum(before * move), sample_sum(move * move)
        ra, rb = sample_sum(before * rest), sample_sum(move * rest)
        weight = self._ridge * (aa + bb) / 2 + 1e-24
        aa, bb = aa + weight, bb + weight
        determinant = (aa * bb - ab * ab).clip(1e-30, None)
        return 1.0 + (bb * ra - ab * rb) / determinant, (aa * rb - ab * ra) / determinant
