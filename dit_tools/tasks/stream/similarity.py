"""Stochastic similarity filter: frames that look like the one before are not drawn again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class Similarity:
    """Skips a frame with the probability ``max(0, 1 - (1 - cos) / (1 - threshold))``.

    ``cos`` is that of its pixels and those of the last frame that was drawn; at most ``longest``
    frames are skipped in a row. Kodaira et al. 2023, Sec. 3.4. A threshold of 1 skips nothing.
    """

    def __init__(self, threshold: float, longest: int, seed: int):
        import numpy as np

        self.threshold, self.longest = threshold, longest
        self._random = np.random.Generator(np.random.Philox(seed))
        self._last: np.ndarray | None = None
        self._skipped = 0

    def skips(self, pixels: np.ndarray) -> bool:
        """Whether this frame, (C, h, w) in [0, 1], is left out; it is remembered if it is not."""
        if self.threshold < 1 and self._last is not None and self._skipped < self.longest:
            chance = 1 - (1 - cosine(self._last, pixels)) / (1 - self.threshold)
            if self._random.random() < chance:
                self._skipped += 1
                return True
        self._last, self._skipped = pixels, 0
        return False


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    """Cosine of two images; 1 for two black ones."""
    import numpy as np

    a, b = (array.astype(np.float64).ravel() for array in (one, two))
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else float(np.array_equal(a, b))
