"""Do the heads that HeadHunter finds guide better than others? Found, random and all, side by side.

    python benchmarks/heads.py [--model emoji] [--heads 4] [--prompts 8] [--judged 16]
        [--random 8] [--steps 10] [--guidance soft-pag] [--seed 0] [--json]

The heads are searched as ``dit calibrate --heads`` does, on some prompts. Then they draw other
prompts from other noise, next to random sets of as many heads, all heads of the middle blocks (the
method's own default) and no heads at all. The score is the search's objective: the cosine between
image and prompt by the image-text model of ``dit eval``, mean over images. ``better`` is the share of the
judged images that score higher than without heads. No timing is involved.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@dataclass(frozen=True)
class Row:
    """A set of heads: mean score of the judged images, share of them better than without."""

    name: str
    heads: str
    score: float
    better: float


def measure(
    model: Any,
    plan: Any,
    prompts: Sequence[str],
    judged: Sequence[str],
    score: Callable[..., Any],
    heads: int,
    random_sets: int,
    seed: int,
) -> list[Row]:
    """Rows of no heads, the method's own, the found ones, and random sets of as many."""
    from dit_tools.tasks.calibrate.heads import Draws, Round, best_round, heads_of, search_heads

    rounds = search_heads(model, plan, prompts, score, keep=heads, seed=seed, tell=_tell)
    found = best_round(rounds)
    print(f"searched: {rounds[0].score:.4f} without heads, {found.score:.4f} with {found.text}", file=sys.stderr)
    draw = Draws(model, plan, judged, score, seed + 10_000_000)
    plain = draw.scores(())

    def row(name: str, text: str, scores: Sequence[float]) -> Row:
        wins = [one > other for one, other in zip(scores, plain, strict=True)]
        return Row(name, text, statistics.fmean(scores), statistics.fmean(wins))

    made = [row("none", "", plain), row("default", "all", draw.scores(None))]
    if found.heads:
        made.append(row("found", found.text, draw.scores(found.heads)))
    pool, chance = heads_of(model), random.Random(seed)
    for i in range(random_sets):
        chosen = tuple(sorted(chance.sample(pool, len(found.heads) or heads)))
        made.append(row(f"random {i + 1}", Round(chosen, 0.0).text, draw.scores(chosen)))
    return made


def table(rows: Sequence[Row]) -> str:
    """Aligned text; the random sets as their mean, worst and best."""
    lines = [f"{'heads':14} {'score':>7} {'better':>7}  which"]
    chance = sorted((r.score, r.better) for r in rows if r.name.startswith("random"))
    for r in rows:
        if not r.name.startswith("random"):
            lines.append(f"{r.name:14} {r.score:7.4f} {r.better:7.0%}  {r.heads}".rstrip())
    if chance:
        mean = [statistics.fmean(values) for values in zip(*chance, strict=True)]
        for name, (score, better) in zip(
            ("random, mean", "random, worst", "random, best"), (mean, chance[0], chance[-1]), strict=True
        ):
            lines.append(f"{name:14} {score:7.4f} {better:7.0%}")
    return "\n".join(lines)


def _tell(done: int, total: int) -> None:
    print(f"\rsearch: {done}/{total}", end="\n" if done == total else "", file=sys.stderr)


def main() -> None:
    """Load the model, search, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=8, help="to search with")
    parser.add_argument("--judged", type=int, default=16, help="other prompts, of prompts40.txt")
    parser.add_argument("--random", type=int, default=8, help="random sets of heads")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", default="soft-pag", metavar="SPEC")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    a = parser.parse_args()
    from benchmarks.acceleration import plan, prompts_of
    from dit_tools.models.loading.load import load
    from dit_tools.tasks.generate.scorer import LatentScorer
    from dit_tools.tasks.quantize.denoising_error import default_prompts

    model = load(a.model, backend="torch", device=a.device)
    critics: dict[tuple[str, ...], LatentScorer] = {}

    def score(x: Any, prompts: Sequence[str]) -> list[float]:
        asked = tuple(prompts)
        if asked not in critics:
            critics[asked] = LatentScorer(model, asked)
        return critics[asked].scores(x)

    searched = default_prompts(model, a.prompts)
    judged = [prompt for prompt in prompts_of(40) if prompt not in searched][: a.judged]
    rows = measure(
        model, plan(model, a.steps, {"guidance": a.guidance}), searched, judged, score, a.heads, a.random, a.seed
    )
    print("\n".join(json.dumps(asdict(r)) for r in rows) if a.json else table(rows))


if __name__ == "__main__":
    main()
