"""Superposition: two prompts or two models in one image, weighed by their tracked densities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array, namespace, sample_sum
from dit_tools.core.branches import COND, UNCOND
from dit_tools.core.errors import UsageError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Step, posterior_std
from dit_tools.methods.composition import SECOND, Combine, Stage


@method(
    paper="arXiv:2412.17762",
    year=2024,
    title="The Superposition of Diffusion Models Using the It\u00f4 Density Estimator",
    authors="Skreta, Atanackovic, Bose, Tong, Neklyudov",
    identity={"mode": "or", "bias": 1e9},
)
class Superdiff(Combine):
    """Combines the first prompt or model with a second one: either of them (or), both at once (and).

    Ancestral steps (DDPM's, in place of the paper's Euler steps) on ``k first + (1 - k) second``.
    mode=or: ``k`` is the softmax of both log-densities of the path so far, which samples the
    mixture; mode=and: ``k`` makes both grow alike. A step from sigma to sigma' (of ``x / alpha``)
    adds ``-(sigma - sigma')/sigma |eps|^2 - <dx, eps>/sigma`` to a log-density, for any path with
    the process's own noise and without derivatives of the network (Ito's lemma, Thm. 1). Needs
    100 steps or more: the estimate's error is of the order of a step. One network call a step, of
    three rows with two prompts; two calls with two models. ``bias`` favours the first; 1e9 is it
    alone, as ``--solver ddim:eta=1`` draws it. On emoji mode=and shows both things no more often than
    a prompt that names them.
    """

    takes = frozenset({"model", "prompt"})
    own_solver = "ddim:eta=1.0"

    mode: str = param("and", "or: one of the two; and: both at once", choices=("or", "and"))
    temperature: float = param(1.0, "or: factor on log-densities; 0 = half of each", ge=0)
    bias: float = param(0.0, "difference of log-densities that favours the first", ge=-1e9, le=1e9)
    margin: float = param(1.0, "and: how far beyond 0..1 a weight may go", ge=0)

    def compose(self, plan: Any) -> None:
        """Only the scale of plain classifier-free guidance has a place in the formula."""
        super().compose(plan)
        if spec.format(plan.solver) != self.own_solver:
            raise UsageError(
                f"--combine superdiff: --solver {plan.solver.info.name} has no place in it",
                "leave it out: the steps are those of ddim:eta=1",
            )
        name = plan.guidance.info.name
        plain = {"none": {}, "cfg": {"scale": _scale(plan.guidance)}}.get(name)
        if plain is None or plan.guidance != type(plan.guidance)(**plain):
            raise UsageError(
                f"--combine superdiff: --guidance {name} has no place in it",
                "use cfg with nothing but a scale, or none",
            )

    def steps(self, stage: Stage, x: Array) -> Iterator[Step]:
        """Ancestral steps over the plan's times, whatever the solver is."""
        scale = _scale(stage.guidance)
        lead = 0.0 * sample_sum(x)  # log-density of the first minus the second's, (B, 1, 1, 1)
        for i, (t, s) in enumerate(pairwise(stage.times)):
            pair = _ask(stage, x, t, scale)
            spread = posterior_std(pair.first.path, t, s)
            noise = spread * stage.noise.fresh() if spread > 0 else 0.0
            if self.mode == "or" or spread == 0:  # the last step has no noise to set off
                weight = self._either(lead)
            else:
                weight = self._both(pair, s, spread, noise, self.bias - lead)
            p = pair.mixed(weight)
            x = mean(p, s, spread) + noise
            if spread > 0:
                lead = lead + gain(pair.first, pair.second, x, s)
            yield Step(i, stage.total, s, x, p)

    def _either(self, lead: Array) -> Array:
        """The softmax of the two log-densities: the weight of the first, (B, 1, 1, 1)."""
        odds = (self.temperature * (lead + self.bias)).clip(-80.0, 80.0)
        return 1.0 / (1.0 + namespace(lead).exp(-odds))

    def _both(self, pair: _Pair, s: float, spread: float, noise: Array, wanted: Array) -> Array:
        """The weight after which the lead has grown by ``wanted``: the gain is linear in it."""
        other = mean(pair.other, s, spread) + noise
        none = gain(pair.first, pair.second, other, s)
        slope = gain(pair.first, pair.second, mean(pair.guided, s, spread) + noise, s) - none
        # 1 at pure noise, and where both say the same; a number of the latents' own precision
        flat = (abs(slope) < 1e-12) + 0 * slope
        weight = (wanted - none) / (slope + flat) * (1 - flat) + 0.5 * flat
        return weight.clip(-self.margin, 1 + self.margin)


@dataclass(frozen=True)
class _Pair:
    """Both predictions at one place, and both after guidance."""

    first: Prediction
    second: Prediction
    guided: Prediction
    other: Prediction

    def mixed(self, weight: Array) -> Prediction:
        """``weight`` of the first and the rest of the second, (B, 1, 1, 1), guided."""
        if self.guided.kind == self.other.kind:
            return self.guided.with_raw(weight * self.guided.raw + (1 - weight) * self.other.raw)
        return self.guided.with_x0(weight * self.guided.x0 + (1 - weight) * self.other.x0)


def _ask(stage: Stage, x: Array, t: float, scale: float) -> _Pair:
    """One call with three rows for two prompts of one model, else a call per model."""
    uncond = [UNCOND] if scale != 1 else []
    if len(stage.experts) == 1:
        first, second, *rest = stage.experts[0].ask([COND, SECOND, *uncond], x, t)
        against = [*rest, *rest]
    else:
        (first, *one), (second, *two) = (e.ask([COND, *uncond], x, t) for e in stage.experts)
        against = [*one, *two]
    if not against:
        return _Pair(first, second, first, second)
    guided, other = (
        cond.with_raw(base.raw + scale * (cond.raw - base.raw))
        for cond, base in zip((first, second), against, strict=True)
    )
    return _Pair(first, second, guided, other)


def gain(first: Prediction, second: Prediction, x: Array, s: float) -> Array:
    """What a step to ``x`` at ``s`` adds to ``log q_first - log q_second``, (B, 1, 1, 1).

    The paper's Thm. 1 with ``dx = x_s / alpha_s - x_t / alpha_t``, multiplied out so that nothing
    is infinite at pure noise (alpha_t = 0).
    """
    path, t = first.path, first.t
    ratio = path.alpha(t) / (path.alpha(s) * path.sigma(t))
    kept = 1.0 - path.sigma(s) * ratio
    one, two = first.eps, second.eps
    move = ratio * x - first.x / path.sigma(t)
    return -sample_sum((one - two) * (kept * (one + two) + move))


def mean(p: Prediction, s: float, spread: float) -> Array:
    """The mean of the ancestral step to ``s``: DDIM's Eq. 12 without its noise."""
    kept = math.sqrt(max(p.path.sigma(s) ** 2 - spread**2, 0.0))
    return p.path.alpha(s) * p.x0 + kept * p.eps


def _scale(guidance: Any) -> float:
    return float(getattr(guidance, "scale", 1.0))
