"""HeadHunter: the attention heads whose perturbation guides best, by a greedy search.

Ahn et al. 2025 (arXiv:2506.10978), Alg. 1: of all heads that are left, those are added whose
perturbation, together with what was chosen before, makes images that a judge likes best. The cost
is ``rounds x heads x pictures`` runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.plan import Plan
from dit_tools.sampling.sampler import Sampler

Head = tuple[int, int]
"""Block and head."""
Score = Callable[[Array, Sequence[str]], Sequence[float]]
"""``score(latents, prompts)``: how good each of the images is, larger is better."""


@dataclass(frozen=True)
class Round:
    """What one round found: the heads chosen so far and the mean score of their images."""

    heads: tuple[Head, ...]
    score: float

    @property
    def text(self) -> str:
        """As ``--guidance soft-pag:heads=`` takes it."""
        return "+".join(f"{block}.{head}" for block, head in self.heads)


def search_heads(
    model: Any,
    plan: Plan,
    prompts: Sequence[str],
    score: Score,
    rounds: int = 1,
    keep: int = 4,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Round]:
    """The rounds of a search; the first has no heads and is the run without perturbation.

    ``plan.guidance`` is ``soft-pag`` with the scale, weight and share that heads are wanted for.
    ``keep``: heads that each round adds. All runs share prompts and noise. ``tell`` hears of runs.
    Raises UsageError for another guidance, UnsupportedError for a network without such heads.
    """
    if plan.guidance.info.name != "soft-pag":
        raise UsageError("a search for heads needs --guidance soft-pag", "give its scale and share")
    pool = heads_of(model)
    draw = Draws(model, plan, prompts, score, seed)
    found = [Round((), draw.mean(()))]
    total, done = sum(len(pool) - keep * i for i in range(rounds)) + rounds, 0
    for _ in range(rounds):
        before, scores = found[-1].heads, []
        for head in pool:
            scores.append(draw.mean((*before, head)))
            done += 1
            tell(done, total)
        order = sorted(range(len(pool)), key=lambda i: -scores[i])[:keep]
        chosen = (*before, *(pool[i] for i in order))
        found.append(Round(chosen, draw.mean(chosen)))
        done += 1
        tell(done, total)
        pool = [head for head in pool if head not in chosen]
        if not pool:
            break
    return found


def best_round(found: Sequence[Round]) -> Round:
    """The round of the best score: more heads may be worse than fewer."""
    return max(found, key=lambda one: one.score)


def heads_of(model: Any) -> list[Head]:
    """Every head that can be perturbed. Raises UnsupportedError where there is none."""
    blocks = model.network.blocks() if "blocks" in model.network.offers else []
    if not blocks:
        raise UnsupportedError("this backend has no blocks to look into", "use --backend torch")
    from dit_tools.nn.blocks import self_attention

    attentions = [(block.index, self_attention(block)) for block in blocks]
    made = [
        (index, head)
        for index, attention in attentions
        if attention is not None
        for head in range(int(attention.heads))
    ]
    if not made:
        raise UnsupportedError(f"{model.name} has no self-attention to perturb", "use cfg")
    return made


class Draws:
    """Images of the same prompts and noise, with one or another set of heads perturbed."""

    def __init__(self, model: Any, plan: Plan, prompts: Sequence[str], score: Score, seed: int):
        self._model, self._plan, self._score, self._prompts = model, plan, score, tuple(prompts)
        self._seeds = [seed + i for i in range(len(prompts))]
        sampler = Sampler(model, plan)
        self._conditions = sampler.conditions(sampler.request(self._prompts))

    def mean(self, heads: Sequence[Head]) -> float:
        """The mean score with these heads perturbed; without any the weight is 0."""
        scores = self.scores(heads)
        return sum(scores) / len(scores)

    def scores(self, heads: Sequence[Head] | None) -> list[float]:
        """A score an image, as ``mean``; None leaves the plan's own heads."""
        plan = self._plan
        if heads is not None:
            changes = {"heads": Round(tuple(heads), 0.0).text} if heads else {"weight": 0.0}
            plan = replace(plan, guidance=replace(plan.guidance, **changes))
        sampler = Sampler(self._model, plan)
        noise = sampler.noise(self._seeds)
        x = noise.fresh()
        for step in sampler.sample(x, self._conditions, noise):
            x = step.x
        return [float(value) for value in self._score(x, self._prompts)]
