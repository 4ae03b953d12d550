"""Multi-scale structural similarity: SSIM's contrast and structure at five resolutions."""

from __future__ import annotations

from dit_tools.core.arrays import Array
from dit_tools.core.registry import method
from dit_tools.methods.metrics import Pairwise, as_float64

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2  # of a dynamic range of 1
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Sec. 3.2, of the scales from fine to coarse
SHORTEST = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1)


@method(
    paper="doi:10.1109/ACSSC.2003.1292216", year=2003,
    title="Multiscale Structural Similarity for Image Quality Assessment",
    authors="Wang, Simoncelli, Bovik",
)  # fmt: skip
class MsSsim(Pairwise):
    """Eq. 7 for each channel, mean over the channels; negative terms count as zero. 1 = equal.

    Sides of more than 160 pixels, so that the window of 11 fits at the coarsest scale.
    """

    def of(self, a: Array, b: Array) -> Array:
        """Similarity of each pair, (B,), in [0, 1]."""
        import numpy as np

        a, b = as_float64(a, b)
        if min(a.shape[2:]) <= SHORTEST:
            raise ValueError(f"ms-ssim: sides of more than {SHORTEST} pixels, got {a.shape[2:]}")
        return np.array([similarity(x, y) for x, y in zip(a, b, strict=True)])


def similarity(x: Array, y: Array) -> float:
    """MS-SSIM of two images (C, H, W) in [0, 1]."""
    import numpy as np

    x, y = x.transpose(1, 2, 0), y.transpose(1, 2, 0)
    product = np.ones(x.shape[2])
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            x, y = _halved(x), _halved(y)
        full, contrast = _terms(x, y)
        last = scale == len(WEIGHTS) - 1
        product *= np.maximum(full if last else contrast, 0.0) ** weight
    return float(product.mean())


def _terms(x: Array, y: Array) -> tuple[Array, Array]:
    """Mean SSIM and mean contrast-structure of each channel, (C,)."""
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + C2) / (var_x + var_y + C2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return (luminance * contrast).mean(axis=(0, 1)), contrast.mean(axis=(0, 1))


def _blur(x: Array) -> Array:
    """Gaussian mean where the whole window fits, (H - 10, W - 10, C)."""
    import cv2

    edge = WINDOW // 2
    blurred = cv2.GaussianBlur(x, (WINDOW, WINDOW), SIGMA).reshape(x.shape)
    return blurred[edge:-edge, edge:-edge]


def _halved(x: Array) -> Array:
    """Means of 2 x 2 pixels; an odd side is padded with zeros in front, as in common code."""
    import numpy as np

    odd = (x.shape[0] % 2, x.shape[1] % 2)
    if any(odd):
        x = np.pad(x, ((odd[0], odd[0]), (odd[1], odd[1]), (0, 0)))
    height, width = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    x = x[:height, :width]
    return (x[0::2, 0::2] + x[1::2, 0::2] + x[0::2, 1::2] + x[1::2, 1::2]) / 4
