"""Metrics: numbers about images (``dit eval --metric``).

Contract: ``begin() -> meter``, fresh for every run; ``meter.update(a, b)`` takes batches of
images (B, C, H, W), float in [0, 1], numpy; ``meter.value() -> float``. A metric declares its
``unit`` and whether ``higher_is_better``. Arrays are numpy: a metric imports it in its body.

Metrics of pairs need only ``of(a, b)``, one value per pair (helpers ``_base.Pairwise``)::

    from dit_tools.methods.metrics.psnr import Psnr
    decibels = Psnr().of(images, references)     # (B,)
    mean = Psnr().mean(images, references)       # float
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.registry import MethodInfo


class MetricState(ABC):
    """The state of one measurement."""

    note: str = ""
    """How far the value can be trusted, in words; known when ``value`` has been called."""

    @abstractmethod
    def update(self, a: Array, b: Any) -> None:
        """Take in images ``a`` (B, C, H, W) in [0, 1] and what they are compared with."""

    @abstractmethod
    def value(self) -> float:
        """The metric of everything taken in. Raises ValueError when that is nothing."""


class Metric(ABC):
    """A number about images.

    ``compares``: what ``update`` takes next to images: ``pairs`` (images of equal shape),
    ``texts`` (their prompts) or ``sets`` (any number of other images).
    """

    info: ClassVar[MethodInfo]
    compares: ClassVar[str] = "pairs"
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True

    @abstractmethod
    def begin(self) -> MetricState:
        """A fresh measurement."""


class Pairwise(Metric):
    """A metric whose value is the mean over pairs of images."""

    @abstractmethod
    def of(self, a: Array, b: Array) -> Array:
        """The metric of each pair, (B,). Raises ValueError for unequal or unfit shapes."""

    def mean(self, a: Array, b: Array) -> float:
        """The mean over the pairs of two batches."""
        meter = self.begin()
        meter.update(a, b)
        return meter.value()

    def begin(self) -> MetricState:
        """A running mean over pairs."""
        return _Mean(self)


class _Mean(MetricState):
    def __init__(self, metric: Pairwise):
        self._metric, self._values = metric, []

    def update(self, a: Array, b: Array) -> None:
        self._values.extend(float(value) for value in self._metric.of(a, b))

    def value(self) -> float:
        if not self._values:
            raise ValueError(f"{self._metric.info.name}: no images were compared")
        return sum(self._values) / len(self._values)


def as_float64(a: Any, b: Any) -> tuple[Array, Array]:
    """Both batches as float64. Raises ValueError when their shapes differ."""
    import numpy as np

    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"images (B, C, H, W) of equal shape are compared, got {a.shape} and {b.shape}")
    return np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
