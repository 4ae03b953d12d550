"""Whether an image is recognised as what was asked for, by a judge trained on real images."""

from __future__ import annotations

from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method, param
from dit_tools.methods.metrics import Metric, MetricState


@method(
    paper="arXiv:1711.10485",
    year=2018,
    title="AttnGAN: Fine-Grained Text to Image Generation with Attentional GANs",
    authors="Xu, Zhang, Huang, Zhang, Gan, Huang, He",
)
class Retrieval(Metric):
    """R-precision at 1: the prompt must be nearer to its image than the prompts of others.

    ``among`` prompts are compared, the image's own and others drawn at random from the run; with
    fewer different prompts all are taken, which is easier. The image-text model knows emoji only.
    """

    unit = "%"
    compares = "texts"

    among: int = param(100, "number of prompts to choose from, including the right one", ge=2, le=10000)
    seed: int = param(0, "seed of the choice of other prompts", ge=0)

    def begin(self) -> MetricState:
        """A fresh measurement over images (B, 3, H, W) and texts (B)."""
        return _Found(self)


class _Found(MetricState):
    def __init__(self, metric: Retrieval):
        self._metric = metric
        self._features, self._names = [], []

    def update(self, a: Array, b: Any) -> None:
        from dit_tools.models.clip import clip64

        self._features.extend(clip64().pictures(a))
        self._names.extend(b)

    def value(self) -> float:
        import numpy as np

        from dit_tools.models.clip import clip64, share_found

        candidates = min(len(set(self._names)), self._metric.among)
        self.note = f"each from {candidates} prompts; chance is {100 / max(candidates, 1):.3g} %"
        if candidates < 2:
            raise ValueError("retrieval: images of at least two different prompts are needed")
        features, texts = np.stack(self._features), clip64().texts(self._names)
        return 100 * share_found(features, texts, self._names, self._metric.among, self._metric.seed)
