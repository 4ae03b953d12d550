"""Degradation: what spoils a photograph (``dit degrade``, and the training pairs of ``restore``).

Contract: ``apply(image, rng) -> image`` of an array (H, W, C), float32, 0 to 1, with C = 1 or 3.
A parameter that is a range, such as ``sigma=5..50``, is drawn uniformly for every image from
``rng``, so that equal seeds spoil equally. Values may leave 0 to 1 (noise does), so that a figure
can be stated without clipping; a step that writes a file format, such as ``jpeg``, clips and
rounds. The size changes in ``downscale`` and ``real`` only.

Steps are chained with ``+``: ``blur:sigma=0.5..2+noise:sigma=10+jpeg:quality=30..80``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.core.registry import MethodInfo

CATEGORY, NONE = "degradation", "none"


class Degradation(ABC):
    """One step that spoils an image."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def apply(self, image: Any, rng: Any) -> Any:
        """The spoilt image.

        Args:
            image: (H, W, C), float32, nominally 0 to 1.
            rng: ``numpy.random.Generator``; every random choice comes from it, in a fixed order.
        """


@dataclass(frozen=True)
class Chain:
    """Steps one after the other; none at all returns the image itself."""

    steps: tuple[Degradation, ...]

    def apply(self, image: Any, rng: Any) -> Any:
        """The image after every step, float32."""
        for step in self.steps:
            image = step.apply(image, rng)
        return image

    def __str__(self) -> str:
        return "+".join(spec.format(step) for step in self.steps) or NONE


def parse(text: str) -> Chain:
    """The chain that ``text`` describes; ``none`` is the empty one.

    Raises UsageError for an unknown step, a bad parameter or an empty step.
    """
    if text.strip() == NONE:
        return Chain(())
    parts = [part.strip() for part in text.split("+")]
    if not all(parts):
        raise UsageError(f"--degrade {text!r}: an empty step", "write STEP+STEP, such as blur+noise")
    return Chain(tuple(spec.parse(CATEGORY, part) for part in parts))


def draw(interval: tuple[float, float], rng: Any) -> float:
    """A number of the range, uniformly; the range's only number when both ends are equal.

    One number is taken from ``rng`` in either case, so that narrowing one range leaves what the
    later steps draw as it was.
    """
    low, high = interval
    return float(low + (high - low) * rng.random())
