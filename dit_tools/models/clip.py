"""The image-text model: features of images and of texts that can be compared, in ONNX Runtime.

Trained by ``dit_tools/tasks/train/clip.py`` on real images; the generators never saw it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from dit_tools.core.arrays import Array
from dit_tools.models import onnx_session

BUCKETS = 4096
"""Entries of the hashed bag of words and letter triples."""
FOLDER = Path(__file__).parent / "clip64"


def buckets(texts: Sequence[str]) -> Array:
    """Counts (B, BUCKETS) of the texts' words and letter triples, each row of length 1, float32.

    Hashed by CRC-32, so that there is no vocabulary to ship and no word is unknown.
    """
    import numpy as np

    counts = np.zeros((len(texts), BUCKETS), np.float32)
    for row, text in zip(counts, texts, strict=True):
        for word in "".join(c if c.isalnum() else " " for c in text.lower()).split():
            edged = f"<{word}>"
            pieces = {edged} | {edged[i : i + 3] for i in range(len(edged) - 2)}
            for piece in pieces:
                row[zlib.crc32(piece.encode()) % BUCKETS] += 2.0 if piece == edged else 1.0
        row /= max(float(np.linalg.norm(row)), 1e-6)
    return counts


def share_found(features: Array, texts: Array, names: Sequence[str], among: int = 100, seed: int = 0) -> float:
    """Share of images whose own text is the nearest among ``among``: mean of ``which_found``."""
    return float(which_found(features, texts, names, among, seed).mean())


def which_found(features: Array, texts: Array, names: Sequence[str], among: int = 100, seed: int = 0) -> Array:
    """Whether the own text of each image (N,) is the nearest among ``among``, itself included.

    ``features``, ``texts``: unit vectors (N, F), row by row belonging together. The others are
    drawn from the texts with another name, by ``seed``; with fewer than ``among`` all are taken.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    labels, found = np.array(list(names)), []
    for i, (feature, text) in enumerate(zip(features, texts, strict=True)):
        others = np.flatnonzero(labels != labels[i])
        others = rng.permutation(others)[: among - 1]
        found.append(bool((feature @ texts[others].T < feature @ text).all()))
    return np.array(found)


class Clip64:
    """The two encoders. ``folder`` holds ``picture.onnx`` and ``text.onnx``."""

    def __init__(self, folder: Path = FOLDER):
        self._picture = onnx_session.open_session(folder / "picture.onnx")
        self._text = onnx_session.open_session(folder / "text.onnx")
        self.size = int(self._picture.get_inputs()[0].shape[2])

    def pictures(self, pixels: Array) -> Array:
        """Unit features (B, F) of images (B, 3, H, W) in [0, 1]; other sizes are scaled."""
        import cv2
        import numpy as np

        side = (self.size, self.size)
        if pixels.shape[2:] != side:
            shrinking = pixels.shape[2] > self.size
            how = cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC
            scaled = [cv2.resize(p.transpose(1, 2, 0), side, interpolation=how) for p in pixels]
            pixels = np.stack(scaled).transpose(0, 3, 1, 2).clip(0, 1)
        given = np.ascontiguousarray(pixels[:, :3], dtype=np.float32)
        parts = [given[i : i + 64] for i in range(0, len(given), 64)]
        return np.concatenate([self._picture.run(None, {"pictures": p})[0] for p in parts])

    def texts(self, texts: Sequence[str]) -> Array:
        """Unit features (B, F) of texts."""
        return self._text.run(None, {"counts": buckets(texts)})[0]


@cache
def clip64() -> Clip64:
    """The shipped judge, opened once."""
    return Clip64()
