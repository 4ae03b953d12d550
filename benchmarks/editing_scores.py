"""The scores of ``benchmarks/editing.py``, after PIE-Bench (Ju et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.editing_cases import SIDE, Case, seen


def scores(case: Case, made: np.ndarray) -> dict[str, float]:
    """Background PSNR, SSIM, MSE x 1e4, and structure distance x 1e3."""
    from dit_tools.methods.metrics.ssim import Ssim

    before, after = seen(case.picture), resized(made)
    kept = (~case.mask)[None].astype(np.float32)
    a, b = (np.ascontiguousarray(x * kept, np.float32)[None] for x in (before, after))
    mse = float(np.square(a - b, dtype=np.float64).mean())
    far = 1e3 * float(np.square(similarity(before) - similarity(after)).mean())
    return {
        "psnr": min(-10 * math.log10(max(mse, 1e-20)), 100.0),
        "mse": 1e4 * mse,
        "ssim": float(Ssim().of(a, b)[0]),
        "structure": far,
    }


def resized(pixels: np.ndarray) -> np.ndarray:
    """(3, h, w) at the cases' size."""
    import cv2

    how = cv2.INTER_AREA if pixels.shape[1] > SIDE else cv2.INTER_CUBIC
    grown = cv2.resize(np.ascontiguousarray(pixels.transpose(1, 2, 0)), (SIDE, SIDE), interpolation=how)
    return grown.clip(0, 1).transpose(2, 0, 1)


def similarity(pixels: np.ndarray, cells: int = 8) -> np.ndarray:
    """Cosines between the cells' descriptors, (cells^2, cells^2): mean edges in four directions."""
    import cv2

    grey = np.ascontiguousarray(pixels.mean(0), np.float32)
    dx, dy = (cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    layers = np.stack([np.abs(dx), np.abs(dy), np.abs(dx + dy), np.abs(dx - dy), grey, 1 - grey])
    side = SIDE // cells
    parts = layers.reshape(len(layers), cells, side, cells, side).mean((2, 4))
    flat = parts.reshape(len(layers), -1).T
    flat = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat @ flat.T


class Finder:
    """Whether the image-text model finds a case's target prompt among those of all cases of the set."""

    def __init__(self, made: Sequence[Case], among: int = 100):
        from dit_tools.models.clip import clip64

        self.made, self.among = made, among
        self.sources, self.targets = (
            clip64().texts([getattr(case, key) for case in made]) for key in ("source", "target")
        )

    def found(self, number: int, picture: np.ndarray) -> bool:
        """Whether it prefers the target to the source's prompt and to others of the set.

        ``picture``: the edit of case ``number``, (3, h, w). The others are drawn by the number.
        """
        from dit_tools.models.clip import clip64

        feature = clip64().pictures(resized(picture)[None].astype(np.float32))[0]
        case = self.made[number]
        names = {case.target, case.source}
        others = [j for j, other in enumerate(self.made) if other.target not in names]
        others = np.random.default_rng(number).permutation(others)[: self.among - 2].astype(int)
        rivals = np.concatenate([self.sources[number : number + 1], self.targets[others]])
        return bool((rivals @ feature < self.targets[number] @ feature).all())
