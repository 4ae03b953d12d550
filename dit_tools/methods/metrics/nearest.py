"""How near images come to the nearest of a set: whether a generator copies its training data."""

from __future__ import annotations

from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method
from dit_tools.methods.metrics import Metric, MetricState

SIDE = 32


@method(
    paper="arXiv:2212.03860",
    year=2023,
    title="Diffusion Art or Digital Forgery? Investigating Data Replication in Diffusion Models",
    authors="Somepalli, Singla, Goldblum, Geiping, Goldstein",
)
class Nearest(Metric):
    """Mean over the images of the PSNR to the nearest image of the reference set.

    Pixels at 32 x 32, so that a copy that is only softer counts as one. Compare with the value of
    real images that the generator has not seen: what lies well above it was memorized.
    """

    unit = "dB"
    compares = "sets"
    higher_is_better = False

    def begin(self) -> MetricState:
        """A fresh measurement; ``update`` may be given either set as an empty batch."""
        return _Nearest()


class _Nearest(MetricState):
    def __init__(self) -> None:
        self._a, self._b = [], []

    def update(self, a: Array, b: Any) -> None:
        import cv2

        for kept, images in ((self._a, a), (self._b, b)):
            for image in images:
                small = cv2.resize(image[:3].transpose(1, 2, 0), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                kept.append(small.ravel())

    def value(self) -> float:
        import numpy as np

        if not self._a or not self._b:
            raise ValueError("nearest: images and references are needed")
        a, b = np.stack(self._a).astype(float), np.stack(self._b).astype(float)
        squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T
        error = squares.min(1).clip(1e-10 * a.shape[1], None) / a.shape[1]  # a copy: 100 dB
        return float(np.mean(-10 * np.log10(error)))
