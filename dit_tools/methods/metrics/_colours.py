"""Colour words and the pixels that they fit."""

from __future__ import annotations

from dit_tools.core.arrays import Array

HUES = {
    "red": (340, 20),
    "orange": (10, 48),
    "yellow": (38, 75),
    "green": (65, 175),
    "blue": (165, 262),
    "purple": (245, 325),
    "pink": (295, 360),
}
"""Degrees from and to; neighbours overlap where people disagree."""
COLOURS = (*HUES, "brown", "black")


def colour_shares(picture: Array) -> dict[str, float]:
    """Colour word -> share of the drawn pixels that it fits, of (3, H, W) in [0, 1] over white.

    Drawn is what is not white; of it greys count as a part of none but ``black``.
    """
    import cv2
    import numpy as np

    pixels = np.ascontiguousarray(picture[:3].transpose(1, 2, 0), dtype=np.float32)
    hue, saturation, value = np.moveaxis(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), 2, 0)
    drawn = pixels.min(axis=2) < 0.93
    count = max(int(drawn.sum()), 1)
    vivid = drawn & (saturation > 0.25) & (value > 0.25)
    brown = vivid & (hue > 5) & (hue < 45) & (value < 0.72)
    fits = {"black": drawn & (value < 0.32), "brown": brown}
    for word, (low, high) in HUES.items():
        inside = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        fits[word] = vivid & inside & ~(brown if word in ("orange", "yellow") else False)
    fits["pink"] |= vivid & (saturation < 0.6) & (value > 0.75) & ((hue < 15) | (hue > 330))
    return {word: float(mask.sum()) / count for word, mask in fits.items()}
