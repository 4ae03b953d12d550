"""PyTorch's CPU generator, one per seed: the numbers that diffusers draws."""

from __future__ import annotations

from collections.abc import Sequence

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method
from dit_tools.methods.noise import Noise, Stream


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

    A picture with seed 7 starts from the noise of ``torch.Generator("cpu").manual_seed(7)``.
    """

    def stream(self, shape: tuple[int, ...], seeds: Sequence[int]) -> Stream:
        """A ``torch.Generator`` on the CPU per seed."""
        return _TorchStream(shape, seeds)
