"""A smaller image, as super-resolution takes it for input."""

from __future__ import annotations

from typing import Any

from dit_tools.core.errors import InputError
from dit_tools.core.registry import method, param
from dit_tools.methods.degradation import Degradation, draw


@method(identity={"scale": (1.0, 1.0)})
class Downscale(Degradation):
    """Sides divided by ``scale``, with antialiasing, by Pillow in floating point.

    ``bicubic`` (a = -0.5, as MATLAB's imresize) is what published figures are made with.
    """

    scale: tuple[float, float] = param((4.0, 4.0), "factor by which sides become shorter", ge=1, le=64)
    filter: str = param("bicubic", "of Pillow", choices=("bicubic", "bilinear", "box", "lanczos"))

    def apply(self, image: Any, rng: Any) -> Any:
        """The smaller image, float32. Raises InputError where a side would vanish."""
        scale = draw(self.scale, rng)
        if scale == 1:
            return image
        height, width = (round(side / scale) for side in image.shape[:2])
        if not height or not width:
            raise InputError(f"{image.shape[1]}x{image.shape[0]} cannot become {scale:g} times smaller",
                             "use a smaller scale")  # fmt: skip
        return resized(image, (height, width), self.filter)


def resized(image: Any, size: tuple[int, int], name: str) -> Any:
    """(H, W, C) float32 at ``size`` (height, width) by a filter of Pillow, channel by channel."""
    import numpy as np
    from PIL import Image

    way, (height, width) = Image.Resampling[name.upper()], size
    made = []
    for channel in range(image.shape[2]):
        flat = Image.fromarray(np.ascontiguousarray(image[:, :, channel]))
        made.append(np.asarray(flat.resize((width, height), way), np.float32))
    return np.stack(made, axis=2)
