"""Images with what a photograph has: smooth light, edges, texture and noise."""

from __future__ import annotations

import numpy as np


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 RGB (height, width, 3): a gradient, discs of several colours, a texture, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    image = 90 + 60 * (y / max(height, 2))[..., None] * np.array([1.0, 0.9, 0.7]) + np.zeros((height, width, 3))
    for _ in range(8):
        centre, radius = rng.uniform(0, 1, 2) * (height, width), rng.uniform(0.05, 0.3) * max(height, width)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        image[inside] = rng.uniform(20, 235, 3)
    image += (15 * np.sin(x / 3.1) * np.sin(y / 4.7))[..., None] * (x > width / 2)[..., None]
    return np.clip(np.rint(image + rng.normal(0, 2, image.shape)), 0, 255).astype(np.uint8)
