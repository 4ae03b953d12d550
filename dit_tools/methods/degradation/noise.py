"""Gaussian noise of a camera's sensor, independent in every pixel."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.degradation import Degradation, draw


@method(identity={"sigma": (0.0, 0.0)})
class Noise(Degradation):
    """Adds normal noise; sigma is on the scale of 0 to 255.

    The result is not clipped, as published figures of denoising have it; a file clips it.
    """

    sigma: tuple[float, float] = param((25.0, 25.0), "standard deviation, of 255", ge=0, le=255)
    grey: float = param(0.0, "probability that all colours share one noise", ge=0, le=1)

    def apply(self, image: Any, rng: Any) -> Any:
        """The image with noise, float32, unclipped."""
        import numpy as np

        sigma, shared = draw(self.sigma, rng) / 255, rng.random() < self.grey
        height, width, channels = image.shape
        noise = rng.standard_normal((height, width, 1 if shared else channels), dtype=np.float32)
        return image if sigma == 0 else image + np.float32(sigma) * noise
