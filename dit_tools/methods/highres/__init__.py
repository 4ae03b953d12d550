"""High resolution: images larger than the model was made for (``--highres``).

Contract: ``attach(network, run) -> context manager`` changes how the network sees positions while
it lasts; ``run.grid`` says rows and columns of image tokens. ``steps(batch) -> Iterator[Step]``
makes the image: one run at the size that was asked for, unless a method climbs to it, as
``diffusehigh`` does. At its identity parameters a method is bit-equal to none.

"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol

from dit_tools.core.arrays import Array
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo
from dit_tools.core.run import RunState

Size = tuple[int, int]
"""Height and width in pixels."""
Correct = Callable[[int, Prediction], Prediction]
"""``correct(call, prediction)``: the guided prediction of a call, changed before the step."""


class SamplingRequest(Protocol):
    """One batch of images that is about to be made, as ``sampling.images.ImageBatch`` is."""

    native: Size  # that the model was made for
    size: Size  # that was asked for
    multiple: int  # of which sides are multiples

    def run(
        self, size: Size, picture: Array | None = None, share: float = 1.0, correct: Correct | None = None
    ) -> Iterator[Any]:
        """Sample at a size: from noise, or from latents that are noised for the last ``share``."""
        ...

    def decode(self, x: Array) -> Array:
        """Latents to pixels (B, C, H, W) in [0, 1], numpy."""
        ...

    def encode(self, pixels: Array) -> Array:
        """Pixels (B, C, H, W) in [0, 1], numpy, to latents."""
        ...


class HighRes:
    """A way to an image that is larger than the model was made for."""

    info: ClassVar[MethodInfo]
    timed: ClassVar[bool] = False  # whether positions change with time

    @property
    def several_runs(self) -> bool:
        """Whether an image takes more than one sampling run."""
        return type(self).steps is not HighRes.steps

    def compose(self, plan: Any) -> None:
        """Raise UsageError when the plan has a method that this one cannot run with."""

    def attach(self, network: Any, run: RunState) -> AbstractContextManager[None]:
        """Change the network's positions until the context is left. Here: not at all."""
        return nullcontext()

    def steps(self, batch: SamplingRequest) -> Iterator[Any]:
        """The steps of the image; the last one's ``x`` is the result. Here: one run."""
        yield from batch.run(batch.size)
