"""The verb of the room, and the denoiser that is listened to and that can repeat itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo

Denoise = Callable[[Array, float], Prediction]
Watch = Callable[[Any, tuple[str, ...]], Denoise]


class Run(Protocol):
    """The edit of one seed, from start to end."""

    def __call__(self, seed: int, watch: Watch | None = None) -> Array:
        """Edited latents (1, C, h, w)."""
        ...


class Steering(ABC):
    """A rule for choosing among seeds."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def seeds(self, first: int) -> tuple[int, ...]:
        """The candidates, ``first`` being the user's seed."""

    @abstractmethod
    def steer(
        self, run: Run, seeds: Sequence[int], pixels: Array, decode: Callable[[Array], Array]
    ) -> tuple[int, Array]:
        """The seed that is kept, and its edited latents.

        ``pixels`` (3 or 4, H, W) is the picture, ``decode`` gives those of clean latents.
        """
