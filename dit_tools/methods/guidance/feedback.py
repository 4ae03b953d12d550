"""Dynamic guidance by feedback: at every step the scale whose image looks best."""

from __future__ import annotations

from dit_tools.core.arrays import Array, namespace, sample_std
from dit_tools.core.errors import UsageError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.run import ImageTextScorer, RunState
from dit_tools.methods.guidance import COND, UNCOND, Branch, Guidance, Guide

FLOOR = 0.1
"""Least weight of an evaluator whose score stands still or falls."""


@method(
    paper="arXiv:2509.16131",
    year=2025,
    title="Dynamic Classifier-Free Diffusion Guidance via Online Feedback",
    authors="Papalampidi, Wiles, Ktena, et al.",
    identity={"scale": 1.0},
)
class Feedback(Guidance):
    """``uncond + s (cond - uncond)`` with the best of several ``s`` for every step and sample.

    All candidates come from one pair of predictions: the network is called as often as for plain
    guidance. Their clean readings are decoded and scored for agreement with the prompt (the image-text model
    of ``dit eval``, which knows emoji only) and for calm: how near their standard deviation is to
    the conditional's, which too large a scale raises. Scores are standardized over candidates and
    weighed by how much each rose since the last choice (never below 0.1), as in the paper. Differs
    from it: its evaluators are networks trained on noisy latents; decoding costs more, so a choice
    holds for ``every`` evaluations. One factor of 1 is plain guidance. Not worth it on emoji: the
    judge's cosine of the final images is plain guidance's (+0.005 +- 0.017, 24 prompts), in 7.5
    times the time (benchmarks/methods.py).
    """

    sees = True

    scale: float = param(4.0, "1 = the conditional prediction alone", ge=0)
    factors: str = param("0.25+0.5+1+1.5+2", "candidates, as multiples of scale")
    every: int = param(2, "evaluations that a choice holds for", ge=1)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The condition alone when the scale is 1."""
        return (COND,) if self.scale == 1 else (COND, UNCOND)

    def begin(self, run: RunState) -> Guide:
        """A guide that remembers its choices and scores. Raises UsageError for bad factors."""
        scales = [self.scale * factor for factor in factors_of(self.factors)]
        scorer = None if self.scale == 1 or len(scales) == 1 else self.scorer(run)
        done, chosen = -1, [0]
        before: list[list[float]] = []

        def guide(x, t):
            nonlocal done, chosen, before
            done += 1
            if self.scale == 1:
                (cond,) = yield (COND,)
                return cond
            cond, uncond = yield COND, UNCOND
            made = [cond.with_raw(uncond.raw + s * (cond.raw - uncond.raw)) for s in scales]
            if scorer is not None and done % self.every == 0:
                chosen, before = _best(scorer, cond, made, before)
            return made[0] if scorer is None else cond.with_raw(_rows(made, chosen))

        return guide


def factors_of(text: str) -> list[float]:
    """Numbers from ``0.5+1+2``. Raises UsageError."""
    try:
        found = [float(part) for part in text.split("+")]
    except ValueError:
        found = []
    if not found or len(found) > 64 or not all(0 <= factor < 1e6 for factor in found):
        raise UsageError(f"--guidance feedback: factors={text!r} is not valid", "give for example 0.5+1+2")
    return found


def _best(
    scorer: ImageTextScorer, cond: Prediction, made: list[Prediction], before: list[list[float]]
) -> tuple[list[int], list[list[float]]]:
    """Candidate of every sample, and its scores (evaluator, sample) for the next choice."""
    spread = sample_std(cond.x0)
    each = [[_fit(scorer, p.x0) for p in made], [_calm(p.x0, spread) for p in made]]
    scores = [list(zip(*rows, strict=True)) for rows in each]  # evaluator, sample, candidate
    chosen = []
    for i in range(len(scores[0])):
        totals = [0.0] * len(made)
        for e, by_sample in enumerate(scores):
            weight = _rise(max(by_sample[i]), before[e][i]) if before else 1.0
            totals = [a + weight * z for a, z in zip(totals, _standard(by_sample[i]), strict=True)]
        chosen.append(totals.index(max(totals)))
    return chosen, [[rows[i][k] for i, k in enumerate(chosen)] for rows in scores]


def _fit(scorer: ImageTextScorer, x0: Array) -> list[float]:
    """Cosines with the prompts, moved to [0, 1]."""
    return [(1 + float(cosine)) / 2 for cosine in scorer.scores(x0)]


def _calm(x0: Array, spread: Array) -> list[float]:
    """The smaller standard deviation by the larger, in [0, 1]."""
    ratio = (sample_std(x0) / spread.clip(1e-12, None)).reshape(-1).tolist()
    return [min(r, 1 / max(r, 1e-12)) for r in ratio]


def _rise(now: float, before: float) -> float:
    """Relative growth of a score since the last choice, within [FLOOR, 1]."""
    return min(max((now - before) / max(before, 1e-3), FLOOR), 1.0)


def _standard(values: tuple[float, ...]) -> list[float]:
    """Values less their mean, by their deviation."""
    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    return [(v - mean) / max(spread, 1e-9) for v in values]


def _rows(made: list[Prediction], chosen: list[int]) -> Array:
    """Row i of candidate ``chosen[i]``."""
    rows = [made[k].raw[i] for i, k in enumerate(chosen)]
    return namespace(made[0].raw).stack(rows)
