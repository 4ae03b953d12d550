"""Gaussian blur, as of a lens that is slightly out of focus."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.degradation import Degradation, draw


@method(identity={"sigma": (0.0, 0.0)})
class Blur(Degradation):
    """Convolves with a Gaussian of that standard deviation, mirrored at the edges."""

    sigma: tuple[float, float] = param((1.5, 1.5), "standard deviation in pixels", ge=0, le=50)

    def apply(self, image: Any, rng: Any) -> Any:
        """The blurred image, float32."""
        import cv2

        sigma = draw(self.sigma, rng)
        if sigma < 0.05:  # the kernel is a single pixel to 8 digits
            return image
        size = 2 * int(3 * sigma + 0.999) + 1
        blurred = cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101)
        return blurred.reshape(image.shape)
