"""How much was kept and how much was changed: PSNR and SSIM inside and outside the mask."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dit_tools.media.image import composite_over
from dit_tools.methods.metrics.ssim import WINDOW, Ssim

if TYPE_CHECKING:
    import numpy as np

MAX_SSIM_PIXELS = 1024  # pixels of the longer side at which similarity is measured


def report(before: np.ndarray, after: np.ndarray, mask: np.ndarray | None) -> dict[str, float]:
    """Figures of two images (H, W, C) in [0, 1], over white; without a mask of the whole.

    PSNR in dB over the pixels of each part, 200 where they are equal; SSIM of the images with the
    other part blackened, as PIE-Bench has it, at most 1024 pixels long.
    """
    import numpy as np

    a, b = (composite_over(x) if x.shape[2] == 4 else x for x in (before, after))
    a = np.repeat(a, 3, axis=2) if a.shape[2] < b.shape[2] else a  # a grey image, coloured
    parts = {"": np.ones(a.shape[:2], bool)} if mask is None else {"_outside": ~mask, "_inside": mask}
    made: dict[str, float] = {}
    for name, part in parts.items():
        if part.any():
            made[f"psnr{name}"] = _decibels(a[part], b[part])
            made |= _similarity(name, a, b, part)
    return made


def _decibels(a: np.ndarray, b: np.ndarray) -> float:
    import numpy as np

    mse = float(np.square(a - b, dtype=np.float64).mean())
    return round(min(-10 * math.log10(mse), 200.0), 2) if mse > 0 else 200.0


def _similarity(name: str, a: np.ndarray, b: np.ndarray, part: np.ndarray) -> dict[str, float]:
    import cv2
    import numpy as np

    scale = min(MAX_SSIM_PIXELS / max(part.shape), 1.0)
    size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
    if min(size) < WINDOW:
        return {}
    kept = part.astype(np.float32)[:, :, None]
    small = [cv2.resize(x * kept, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1) for x in (a, b)]
    value = Ssim().of(*(x.transpose(2, 0, 1)[None] for x in small))
    return {f"ssim{name}": round(float(value[0]), 4)}
