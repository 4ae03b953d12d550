"""Photon noise: brighter places are noisier, as in any camera."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.degradation import Degradation, draw


@method()
class Poisson(Degradation):
    """``Poisson(photons x) / photons``, and normal noise of the read-out on top; not clipped."""

    photons: tuple[float, float] = param((100.0, 100.0), "photons of a white pixel", ge=1, le=1e6)
    read: tuple[float, float] = param((0.0, 0.0), "deviation of the read-out's noise, of 255", ge=0, le=255)

    def apply(self, image: Any, rng: Any) -> Any:
        """The image as so many photons show it, float32."""
        import numpy as np

        photons, read = draw(self.photons, rng), draw(self.read, rng) / 255
        counted = rng.poisson(np.clip(image, 0, 1).astype(np.float64) * photons) / photons
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        return counted.astype(np.float32) + np.float32(read) * noise
