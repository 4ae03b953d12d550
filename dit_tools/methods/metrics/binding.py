"""Whether an attribute went to the thing that was asked to have it."""

from __future__ import annotations

from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.methods.metrics import Metric, MetricState


@method(
    paper="arXiv:2307.06350",
    year=2023,
    title="T2I-CompBench: A Comprehensive Benchmark for Open-world Compositional Text-to-image Generation",
    authors="Huang, Sun, Xie, Li, Liu",
)
class Binding(Metric):
    """Share of images that show the asked attribute on the asked thing.

    Prompts are ``COLOUR THING`` or ``THING with ATTRIBUTE``. The image-text model must find the prompt nearer
    than each swap within the run: the thing with another attribute, another thing with the same
    one, and the thing alone. A colour must also fill a share of the drawn pixels and no less than
    the swapped colours do. Differs from the paper, which asks a question-answering model. Of use
    with pairs that no training image has (benchmarks/binding.txt).
    """

    unit = "%"
    compares = "texts"

    swaps: int = param(5, "number of swapped prompts per side that are compared", ge=1, le=1000)
    share: float = param(0.25, "share of the drawn pixels that a colour must fill", ge=0, le=1)
    seed: int = param(0, "seed of the choice of swaps", ge=0)

    def begin(self) -> MetricState:
        """A fresh measurement over images (B, 3, H, W) and texts (B)."""
        return _Bound(self)


class _Bound(MetricState):
    def __init__(self, metric: Binding):
        self._metric = metric
        self._features, self._pairs, self._colours = [], [], []

    def update(self, a: Array, b: Any) -> None:
        from dit_tools.methods.metrics._colours import colour_shares
        from dit_tools.models.clip import clip64

        self._pairs.extend(split_prompt(text) for text in b)
        self._features.extend(clip64().pictures(a))
        self._colours.extend(colour_shares(image) for image in a)

    def value(self) -> float:
        if len(set(self._pairs)) < 2:
            raise ValueError("binding: images of at least two different prompts are needed")
        found = [self._coloured(i) and self._judged(i) for i in range(len(self._pairs))]
        return 100 * sum(found) / len(found)

    def _coloured(self, i: int) -> bool:
        """Whether the asked colour is there, where a colour was asked for."""
        attribute, _ = self._pairs[i]
        mine = self._colours[i]
        return attribute not in mine or (
            mine[attribute] >= self._metric.share and mine[attribute] >= 0.999 * max(mine.values())
        )

    def _judged(self, i: int) -> bool:
        """Whether the image-text model finds the prompt nearer than every swap."""
        from dit_tools.models.clip import clip64

        texts = clip64().texts([join_prompt(*self._pairs[i]), *self._swapped(i)])
        near = texts @ self._features[i]
        return bool((near[1:] < near[0]).all())

    def _swapped(self, i: int) -> list[str]:
        """The thing with other attributes, other things with the attribute, the thing alone."""
        import random

        attribute, thing = self._pairs[i]
        kind = attribute in self._colours[i]
        others = sorted({a for a, _ in self._pairs if (a in self._colours[i]) == kind} - {attribute})
        things = sorted({t for _, t in self._pairs} - {thing})
        rng = random.Random(f"{self._metric.seed}-{i}")
        few = [rng.sample(found, min(self._metric.swaps, len(found))) for found in (others, things)]
        alone = [] if kind else [thing]  # a thing without a word of colour may have that colour
        return [join_prompt(a, thing) for a in few[0]] + [join_prompt(attribute, t) for t in few[1]] + alone


def split_prompt(text: str) -> tuple[str, str]:
    """Attribute and thing of a prompt. Raises ValueError for one that has no attribute."""
    from dit_tools.methods.metrics._colours import COLOURS

    first, _, rest = text.strip().lower().partition(" ")
    if first in COLOURS and rest:
        return first, rest
    thing, found, attribute = text.strip().lower().partition(" with ")
    if found and thing and attribute:
        return attribute, thing
    raise ValueError(
        f"binding: {text[:40]!r} is neither COLOUR THING nor THING with ATTRIBUTE; colours are {', '.join(COLOURS)}"
    )


def join_prompt(attribute: str, thing: str) -> str:
    """The inverse of ``split_prompt``."""
    from dit_tools.methods.metrics._colours import COLOURS

    return f"{attribute} {thing}" if attribute in COLOURS else f"{thing} with {attribute}"
