"""Structural similarity: whether two images have the same local means, contrasts and patterns."""

from __future__ import annotations

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method
from dit_tools.methods.metrics import Pairwise, as_float64

WINDOW, SIGMA = 11, 1.5  # Sec. III-B
C1, C2 = 0.01**2, 0.03**2  # of a dynamic range of 1


@method(
    paper="doi:10.1109/TIP.2003.819861",
    year=2004,
    title="Image Quality Assessment: From Error Visibility to Structural Similarity",
    authors="Wang, Bovik, Sheikh, Simoncelli",
)
class Ssim(Pairwise):
    """Structural similarity: local means, variances and covariance compared.

    Eq. 13 in a Gaussian window of 11 x 11, mean over the pixels where it fits and channels.

    Population covariances, as in the authors' code. 1 = equal. Sides of at least 11 pixels.
    """

    def of(self, a: Array, b: Array) -> Array:
        """Similarity of each pair, (B,), in [-1, 1]."""
        import numpy as np

        a, b = as_float64(a, b)
        if min(a.shape[2:]) < WINDOW:
            raise ValueError(f"ssim: sides of at least {WINDOW} pixels, got {a.shape[2:]}")
        return np.array([_similarity(x, y) for x, y in zip(a, b, strict=True)])


def _similarity(x: Array, y: Array) -> float:
    """Mean SSIM of two images (C, H, W)."""
    x, y = x.transpose(1, 2, 0), y.transpose(1, 2, 0)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * covariance + C2) / (var_x + var_y + C2)
    return float((luminance * structure).mean())


def _blur(x: Array) -> Array:
    """Gaussian mean in the window, (H - 10, W - 10, C)."""
    import cv2

    edge = WINDOW // 2
    blurred = cv2.GaussianBlur(x, (WINDOW, WINDOW), SIGMA).reshape(x.shape)
    return blurred[edge:-edge, edge:-edge]
