"""Peak signal-to-noise ratio: how far the pixels of two images are apart."""

from __future__ import annotations

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method
from dit_tools.methods.metrics import Pairwise, as_float64


@method()
class Psnr(Pairwise):
    """Peak signal-to-noise ratio of the pixels.

    ``-10 log10(mean squared error)`` of images in [0, 1], all channels; equal = infinite.

    The value of several pairs is the mean of their decibels, not the decibels of the mean error.
    """

    unit = "dB"

    def of(self, a: Array, b: Array) -> Array:
        """Decibels of each pair, (B,)."""
        import numpy as np

        a, b = as_float64(a, b)
        with np.errstate(divide="ignore"):
            return -10 * np.log10(np.square(a - b).mean(axis=(1, 2, 3)))
