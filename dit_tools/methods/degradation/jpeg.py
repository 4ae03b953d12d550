"""JPEG compression."""

from __future__ import annotations

import io
from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.degradation import Degradation, draw


@method()
class Jpeg(Degradation):
    """Writes the image as a JPEG file and reads it back (libjpeg, by Pillow).

    ``halved`` is the probability that the colour is stored at half the size (4:2:0), as most
    cameras and programs do; a grey image has no colour to halve.
    """

    quality: tuple[float, float] = param((30.0, 30.0), "of libjpeg, 1 to 100", ge=1, le=100)
    halved: float = param(1.0, "probability of colour at half the size (4:2:0)", ge=0, le=1)

    def apply(self, image: Any, rng: Any) -> Any:
        """The decoded image with values k / 255, float32."""
        import numpy as np
        from PIL import Image

        quality = round(draw(self.quality, rng))
        subsampling = 2 if rng.random() < self.halved else 0
        pixels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
        stored = io.BytesIO()
        flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        Image.fromarray(flat).save(stored, "JPEG", quality=quality, subsampling=subsampling)
        decoded = np.asarray(Image.open(stored), np.float32).reshape(image.shape)
        return decoded / np.float32(255)
