"""Haze: light of the air in front of what is far away."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.degradation import Degradation, draw


@method(
    paper="doi:10.1109/TIP.2018.2867951",
    title="Benchmarking Single-Image Dehazing and Beyond",
    year=2019,
    authors="Li, Ren, Fu, et al.",
    identity={"density": (0.0, 0.0)},
)
class Haze(Degradation):
    """``x T + air (1 - T)`` with ``T = exp(-density depth)`` (Koschmieder's law; ranges of RESIDE).

    The depth of a photograph is not known: here it rises from 0 at the lower edge to 1 at the
    upper one, with smooth random hills.
    """

    density: tuple[float, float] = param((0.6, 1.8), "of the haze", ge=0, le=20)
    air: tuple[float, float] = param((0.7, 1.0), "brightness of the air's light", ge=0, le=1)

    def apply(self, image: Any, rng: Any) -> Any:
        """The hazy image, float32."""
        import cv2
        import numpy as np

        density, air = draw(self.density, rng), draw(self.air, rng)
        height, width = image.shape[:2]
        hills = cv2.resize(rng.random((4, 4), dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        depth = np.linspace(1, 0, height, dtype=np.float32)[:, None] * (0.7 + 0.6 * hills.clip(0, 1))
        through = np.exp(-np.float32(density) * depth.clip(0, 1))[:, :, None]
        return image * through + np.float32(air) * (1 - through)
