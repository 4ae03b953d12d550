"""Steering: several seeds are tried, and one is kept before it is finished (``dit edit --steer``).

Contract: ``seeds(first)`` are the candidates, ``steer(run, seeds, pixels, decode)`` gives the seed
that is kept and its latents. ``run(seed, watch)`` makes the whole edit of one; every denoiser goes
through ``watch(denoise, names)`` first, which may count its calls, look at its answers, give
answers that it knows, or end the run by an exception of its own. With one candidate the first seed
is run untouched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo

Denoise = Callable[[Array, float], Prediction]
Watch = Callable[[Any, tuple[str, ...]], Denoise]


class EditOneSeed(Protocol):
    """The edit of one seed, from start to end."""

    def __call__(self, seed: int, watch: Watch | None = None) -> Array:
        """Edited latents (1, C, h, w)."""
        ...


class SeedSearch(ABC):
    """A rule for choosing among seeds."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def seeds(self, first: int) -> tuple[int, ...]:
        """The candidates, ``first`` being the user's seed."""

    @abstractmethod
    def steer(
        self, run: EditOneSeed, seeds: Sequence[int], pixels: Array, decode: Callable[[Array], Array]
    ) -> tuple[int, Array]:
        """The seed that is kept, and its edited latents.

        ``pixels`` (3 or 4, H, W) is the image, ``decode`` gives those of clean latents.
        """
