"""Restoration: an image from what is left of it, by a model that was trained for neither.

A text-to-image model knows what images look like; ``y = H x`` says what is known of this one
(``media.operators``). A method joins the two while it samples, without any training.

Contract: ``restore(problem) -> latents``, clean, (1, C, h, w). A ``Problem`` has the measurement
and the model: ``problem.denoise(x, t)`` predicts, ``problem.corrected(x0, share)`` takes predicted
clean latents towards the measurement. Differs from the papers in all methods of this folder: they
correct pixels, here latents are decoded, corrected and encoded, and the difference of the two codes
is added, which leaves latents that fit already bit for bit. No gradients are needed, neither of the
network nor of the decoder, so graphs of ONNX do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Path
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo
from dit_tools.core.steps import posterior_std
from dit_tools.media.operators import Operator

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Problem:
    """An image to be found.

    Attributes:
        operator: H of the measurement.
        measured: y, numpy, pixels in [-1, 1].
        denoise: ``denoise(x, t) -> Prediction`` of the model, guidance included.
        decode: latents (1, C, h, w) to pixels (1, 3, H, W), numpy, in [-1, 1].
        encode: the way back, to the model's kind of array.
        path: the model's noise path.
        times: falling from 1 to 0.
        stream: ``stream.fresh()`` gives noise like the latents.
    """

    operator: Operator
    measured: np.ndarray
    denoise: Callable[[Array, float], Prediction]
    decode: Callable[[Array], Any]
    encode: Callable[[Any], Array]
    path: Path
    times: Sequence[float]
    stream: Any

    def corrected(self, x0: Array, share: float = 1.0) -> Array:
        """Clean latents, nearer to the measurement by ``share`` of what they lack."""
        if share == 0:
            return x0
        pixels = self.decode(x0)
        better = self.operator.consistent(pixels, self.measured, share)
        return x0 + (self.encode(better) - self.encode(pixels))

    def data_gradient(self, x0: Array) -> Array:
        """``H'(H x - y)`` of the decoded image, as a change of latents."""
        pixels = self.decode(x0)
        slope = self.operator.adjoint(self.operator.apply(pixels) - self.measured)
        return self.encode(pixels + slope) - self.encode(pixels)

    def first(self) -> Array:
        """The image that the measurement alone gives, as latents."""
        return self.encode(self.operator.inverse(self.measured))


class Restoration(ABC):
    """A rule for finding an image that fits its measurement and the model."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def restore(self, problem: Problem) -> Array:
        """Clean latents (1, C, h, w)."""


def renoised(path: Path, p: Prediction, x0: Array, t: float, s: float, eta: float, noise: Callable[[], Array]) -> Array:
    """Latents at ``s`` when the clean ones are ``x0``: DDIM with ``eta`` of the fresh noise of DDPM.

    The noise that is kept is the predicted one.
    """
    fresh = eta * posterior_std(path, t, s)
    kept = max(path.sigma(s) ** 2 - fresh**2, 0.0) ** 0.5
    made = path.alpha(s) * x0 + kept * p.eps
    return made + fresh * noise() if fresh > 0 else made
