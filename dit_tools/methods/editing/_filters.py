"""Filters in pixel space. Images (B, 3 or 4, H, W) in [0, 1]; a fourth layer stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NAMES = ("none", "gray", "blur", "edge", "lowpass", "highpass", "colormatch")
LUMA = (0.299, 0.587, 0.114)


def filter_image(pixels: np.ndarray, name: str, amount: float, reference: np.ndarray | None = None) -> np.ndarray:
    """The image behind a filter; ``none`` gives it back itself.

    ``amount`` in (0, 1]: share of the colour taken out (gray), deviation in 1/16 of the shorter
    side (blur), share of frequencies cut away (lowpass, highpass), strength of the lines (edge),
    share of the way to the reference's colours (colormatch). ``reference`` is for colormatch.
    """
    import numpy as np

    if name == "none":
        return pixels
    made = pixels.copy()
    for row in made:
        row[:3] = _one(row[:3], name, amount, None if reference is None else reference[0, :3])
    return made.clip(0, 1).astype(np.float32)


def _one(x: np.ndarray, name: str, amount: float, reference: np.ndarray | None) -> np.ndarray:
    if name == "gray":
        return x + amount * (_luma(x) - x)
    if name == "blur":
        return _blurred(x, amount * min(x.shape[1:]) / 16)
    if name == "edge":
        return 1 - amount * _edges(x)
    if name == "colormatch":
        assert reference is not None, "the method asks for a reference"
        return x + amount * (_matched(x, reference) - x)
    low = _passed(x, 1 - amount if name == "lowpass" else amount)
    return low if name == "lowpass" else 0.5 + x - low


def _luma(x: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.tensordot(np.array(LUMA, x.dtype), x, 1)[None].repeat(3, axis=0)


def _blurred(x: np.ndarray, deviation: float) -> np.ndarray:
    import cv2
    import numpy as np

    layers = np.ascontiguousarray(x.transpose(1, 2, 0))
    return cv2.GaussianBlur(layers, (0, 0), max(deviation, 1e-3)).transpose(2, 0, 1)


def _edges(x: np.ndarray) -> np.ndarray:
    """Size of the brightness gradient (Sobel), its 99th percentile as 1."""
    import cv2
    import numpy as np

    plane = np.ascontiguousarray(_luma(x)[0])
    size = np.hypot(cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1))
    return np.clip(size / max(float(np.percentile(size, 99)), 1e-6), 0, 1)[None].repeat(3, axis=0)


def _passed(x: np.ndarray, share: float) -> np.ndarray:
    """The frequencies below ``share`` of the highest, by an ideal filter."""
    import numpy as np

    rows, columns = (np.fft.fftfreq(n)[:, None] for n in x.shape[1:])
    keep = np.hypot(rows, columns.T) <= share * 0.5 * 2**0.5
    return np.fft.ifft2(np.fft.fft2(x) * keep).real


def _matched(x: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Colours with the mean and covariance of the reference's (whitened and coloured again)."""
    import numpy as np

    a, b = (p.reshape(3, -1).astype(np.float64) for p in (x, reference))
    roots = []
    for pixels, power in ((a, -0.5), (b, 0.5)):
        values, vectors = np.linalg.eigh(np.cov(pixels) + 1e-6 * np.eye(3))
        roots.append((vectors * values**power) @ vectors.T)
    moved = roots[1] @ roots[0] @ (a - a.mean(axis=1, keepdims=True))
    return (moved + b.mean(axis=1, keepdims=True)).reshape(x.shape)
