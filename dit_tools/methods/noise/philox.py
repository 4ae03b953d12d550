"""Counter-based noise from numpy, the default: needs no torch and is equal on every machine."""

from __future__ import annotations

from collections.abc import Sequence

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method
from dit_tools.methods.noise import Noise, NoiseSource


class _PhiloxStream:
    def __init__(self, shape: tuple[int, ...], seeds: Sequence[int]):
        import numpy as np

        self._stack = np.stack
        self._shape, self._dtype = shape, np.float32
        self._generators = [np.random.Generator(np.random.Philox(seed)) for seed in seeds]

    def fresh(self) -> Array:
        draws = [g.standard_normal(self._shape, dtype=self._dtype) for g in self._generators]
        return self._stack(draws)


@method(
    paper="doi:10.1145/2063384.2063405",
    year=2011,
    title="Parallel random numbers: as easy as 1, 2, 3",
    authors="Salmon, Moraes, Dror, Shaw",
)
class Philox(Noise):
    """Philox 4x64 streams through numpy, one per seed, the same on every device."""

    def stream(self, shape: tuple[int, ...], seeds: Sequence[int]) -> NoiseSource:
        """A Philox stream per seed."""
        return _PhiloxStream(shape, seeds)
