"""PyTorch's CPU generator, one per seed: the numbers that diffusers draws."""

from __future__ import annotations

from collections.abc import Sequence

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UsageError
from dit_tools.core.registry import method
from dit_tools.methods.noise import Noise, NoiseSource

SEEDS = 2**32
"""PyTorch's CPU generator (MT19937) keeps the lower 32 bits of a seed."""


class _TorchStream:
    def __init__(self, shape: tuple[int, ...], seeds: Sequence[int]):
        import torch

        self._torch, self._shape = torch, shape
        self.generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def fresh(self) -> Array:
        draws = [self._torch.randn((1, *self._shape), generator=generator) for generator in self.generators]
        return self._torch.cat(draws)


@method(needs={"torch"})
class TorchCpu(Noise):
    """What diffusers draws for a list of CPU generators with these seeds, as other tools do.

    An image with seed 7 starts from the noise of ``torch.Generator("cpu").manual_seed(7)``. Seeds
    of 2**32 and more are refused: they would repeat the images of smaller ones.
    """

    def stream(self, shape: tuple[int, ...], seeds: Sequence[int]) -> NoiseSource:
        """A ``torch.Generator`` on the CPU per seed. Raises UsageError for a seed from 2**32 on."""
        for seed in seeds:
            if not 0 <= seed < SEEDS:
                raise UsageError(
                    f"--noise torch-cpu: seed {seed} gives the image of seed {seed % SEEDS}",
                    f"use a seed below {SEEDS}, or --noise philox",
                )
        return _TorchStream(shape, seeds)
