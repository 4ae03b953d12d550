"""How far two sets of images are apart as distributions of the image-text model's features."""

from __future__ import annotations

from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method
from dit_tools.methods.metrics import Metric, MetricState

ENOUGH = 512
"""Images in each set below which the bias is larger than what is measured: the image-text model's features have
as many dimensions, and fewer images do not even span them."""


@method(
    paper="arXiv:1706.08500",
    year=2017,
    title="GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",
    authors="Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter",
)
class Frechet(Metric):
    """Distance of two sets of images: Frechet distance of Gaussians fitted to image features.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` (Eq. 6) on features of the project's judge.

    Not FID: the features are not Inception's, and numbers compare only with numbers of this image-text model.
    Sets of a few hundred images are biased upwards; give a real-versus-real split as the floor.
    """

    compares = "sets"
    higher_is_better = False

    def begin(self) -> MetricState:
        """A fresh measurement; ``update`` may be given either set as an empty batch."""
        return _Sets()


class _Sets(MetricState):
    def __init__(self) -> None:
        self._a, self._b = [], []

    def update(self, a: Array, b: Any) -> None:
        from dit_tools.models.clip import clip64

        for kept, images in ((self._a, a), (self._b, b)):
            if len(images):
                kept.extend(clip64().pictures(images))

    def value(self) -> float:
        import numpy as np

        fewest = min(len(self._a), len(self._b))
        if fewest < ENOUGH:
            self.note = f"mostly noise: {fewest} images in a set, {ENOUGH} are needed"
        if fewest < 2:
            raise ValueError("frechet: at least two images in each set are needed")
        return frechet(np.stack(self._a), np.stack(self._b))


def frechet(a: Array, b: Array) -> float:
    """Fréchet distance of two sets of features (N, F) and (M, F) as Gaussians.

    ``tr((C1 C2)^(1/2))`` is the sum of the singular values of ``C1^(1/2) C2^(1/2)``.
    """
    import numpy as np

    a, b = (np.asarray(x, np.float64) for x in (a, b))
    roots = [_root(np.cov(x, rowvar=False)) for x in (a, b)]
    cross = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    spread = sum(np.square(root).sum() for root in roots)  # tr(C) of a symmetric root
    return float(max(apart + spread - 2 * cross, 0.0))


def _root(covariance: Array) -> Array:
    import numpy as np

    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
