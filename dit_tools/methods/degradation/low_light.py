"""A photograph taken with too little light."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.degradation import Degradation, draw


@method(identity={"gain": (1.0, 1.0), "gamma": (1.0, 1.0)})
class LowLight(Degradation):
    """``gain x^gamma``; add noise behind it, as a camera would."""

    gain: tuple[float, float] = param((0.5, 1.0), "factor of brightness", ge=0, le=1)
    gamma: tuple[float, float] = param((1.5, 5.0), "exponent; above 1 darkens", ge=1, le=20)

    def apply(self, image: Any, rng: Any) -> Any:
        """The darker image, float32."""
        import numpy as np

        gain, gamma = draw(self.gain, rng), draw(self.gamma, rng)
        if gain == gamma == 1:
            return image
        return np.float32(gain) * np.clip(image, 0, 1) ** np.float32(gamma)
