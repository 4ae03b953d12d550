"""Noise: where the starting latents come from (``--noise``).

Contract: ``draw(shape, seeds) -> array`` of shape ``(len(seeds), *shape)``, float32, one stream per
seed, so that an image depends on its seed and never on the batch; ``stream(shape, seeds)`` gives
an object whose ``fresh()`` draws the next noise of the same streams, for stochastic solvers.

A stream made of ``torch.Generator`` shows them as ``generators``, so that ``--solver diffusers``
can hand them on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from dit_tools.core.arrays import Array
from dit_tools.core.registry import MethodInfo


class NoiseSource(Protocol):
    """An endless supply of noise of one shape."""

    def fresh(self) -> Array:
        """The next standard-normal array, (B, ...), float32 on the CPU."""
        ...


class Noise(ABC):
    """A source of standard-normal arrays."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def stream(self, shape: tuple[int, ...], seeds: Sequence[int]) -> NoiseSource:
        """A stream of arrays (len(seeds), *shape); row i depends on ``seeds[i]`` alone."""

    def terminal(self, model: Any, conditions: Mapping[str, Any], x: Array) -> Array:
        """Where a run starts, from the first noise ``x`` (B, C, h, w). Here: at the noise."""
        return x

    def draw(self, shape: tuple[int, ...], seeds: Sequence[int]) -> Array:
        """The first noise of the stream."""
        return self.stream(shape, seeds).fresh()
