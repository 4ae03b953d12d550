"""Rounding to the 256 values of an ordinary file."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method
from dit_tools.methods.degradation import Degradation


@method()
class Clip(Degradation):
    """Clips to black and white and rounds to 8 bits, as storing the image in a file does."""

    def apply(self, image: Any, rng: Any) -> Any:
        """The image with values k / 255, float32."""
        import numpy as np

        return (np.clip(image, 0, 1) * 255).round().astype(np.float32) / np.float32(255)
