"""What a job becomes: pixels as the codec gave them, and as an image on its background."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import ModelError
from dit_tools.core.plan import Plan
from dit_tools.jobs.expand import Job

if TYPE_CHECKING:
    import numpy as np


@dataclass
class GeneratedImage:
    """One image: pixels (3 or 4, H, W) in [0, 1] as the codec gave them, and its frames.

    ``frames`` hold the predicted clean image after every step as 8-bit (H, W, 3), where wanted.
    """

    job: Job
    pixels: np.ndarray
    plan: Plan
    height: int
    width: int
    seconds: float
    frames: list[np.ndarray] = field(default_factory=list)


def layers(drawn: GeneratedImage, alpha: bool) -> Any:
    """The image as float (H, W, 3 or 4): opaque, on the background, or with straight alpha.

    A model with alpha gives colours over white and opacity; where opacity is nothing the colour is
    white. Raises ModelError when the autoencoder gave values that are not numbers.
    """
    import numpy as np

    pixels, settings = drawn.pixels.transpose(1, 2, 0), drawn.job.settings
    if not np.isfinite(pixels).all():
        message = "the autoencoder gave values that are not numbers"
        raise ModelError(message, "use --dtype float32, or check the model")
    if not alpha or not (settings.transparent or settings.background):
        return pixels[:, :, :3]
    over_white, opacity = pixels[:, :, :3], pixels[:, :, 3:]
    if settings.transparent:
        straight = (over_white - (1 - opacity)) / np.maximum(opacity, 1 / 255)
        return np.concatenate([np.where(opacity > 0, straight, 1).clip(0, 1), opacity], 2)
    colour = np.array(rgb(settings.background or ""), pixels.dtype)
    return (over_white - (1 - opacity) * (1 - colour)).clip(0, 1)


def rgb(colour: str) -> tuple[float, float, float]:
    """``#rrggbb`` as three numbers in [0, 1]."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue
