"""Crops of photographs before and after the wavelet codec, made while the network trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dit_tools.media.wavelet import quantize as quantization
from dit_tools.media.wavelet import transform
from dit_tools.media.wavelet.tables import Tables
from dit_tools.tasks.train.codec.photographs import photographs

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT = 96
"""Coded photographs that crops are drawn from at a time."""
SHARED = 24
"""Crops between two photographs that are coded."""


class Crops:
    """Draws batches of crops; photographs are coded again and again at other rates.

    Args:
        data: Folder of the archives.
        tables: Integer tables of the codec, for its choice of quantised values.
        seed: Of every draw.
        lowest: The smallest quantisation step.
        highest: The largest.
        every: Take one of so many photographs of clothes, which are all alike.
    """

    def __init__(self, data: Path, tables: Tables, seed: int, lowest: float, highest: float, every: int):
        import numpy as np

        self.random = np.random.default_rng(seed)
        self.tables, self.range = tables, (np.log(lowest), np.log(highest))
        budgie, photos, clothes = (
            [image for _, image in photographs(data, (name,), share, shortest)]
            for name, share, shortest in (
                ("photos/cc0_budgie.tar", 1, 256),
                ("photos/cc0_photos.tar", 1, 300),
                ("clothing/clothing_cc0.tar", every, 256),
            )
        )
        self.images = budgie * 3 + photos + clothes  # the only lossless ones more often
        self.entries: list[tuple[NDArray, NDArray, NDArray]] = []
        self.place = self.due = 0

    def batch(self, count: int, side: int) -> tuple[NDArray, NDArray, NDArray]:
        """Coded and true crops (count, 3, side, side) about 0, and steps (count, 2, side / 4 ...)."""
        import numpy as np

        while len(self.entries) < KEPT:
            self.entries.append(self._coded())
        self.due += count
        if self.due >= SHARED:
            self.entries[self.place] = self._coded()
            self.place, self.due = (self.place + 1) % KEPT, 0
        chosen = self.random.integers(0, KEPT, count)
        crops = [self._crop(self.entries[index], side) for index in chosen]
        coded, true, steps = (np.stack(part) for part in zip(*crops, strict=True))
        return coded, true, steps

    def _coded(self) -> tuple[NDArray, NDArray, NDArray]:
        import numpy as np

        image = self.images[self.random.integers(len(self.images))]
        if min(image.shape[:2]) >= 600 and self.random.random() < 0.5:
            image = _half(image)
        for axis in (0, 1):
            if self.random.random() < 0.5:
                image = np.flip(image, axis)
        if self.random.random() < 0.5:
            image = np.swapaxes(image, 0, 1)
        step = float(np.exp(self.random.uniform(*self.range)))
        weight = quantization.LAMBDA * float(self.random.uniform(0.7, 1.2))
        coded, steps = reconstructed(image, step, self.tables, weight)
        true = np.moveaxis(image, -1, 0).astype(np.float16) - np.float16(128)
        return coded.astype(np.float16), true, steps

    def _crop(self, entry: tuple[NDArray, NDArray, NDArray], side: int) -> tuple:
        coded, true, steps = entry
        rows, columns = (n // 4 - side // 4 for n in true.shape[1:])
        top, left = self.random.integers(rows + 1), self.random.integers(columns + 1)
        inside = (slice(None), slice(4 * top, 4 * top + side), slice(4 * left, 4 * left + side))
        cells = (slice(None), slice(top, top + side // 4), slice(left, left + side // 4))
        return coded[inside], true[inside], steps[cells]


def _half(image: NDArray) -> NDArray:
    import numpy as np
    from PIL import Image

    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def reconstructed(image: NDArray, step: float, tables: Tables, weight: float) -> tuple[NDArray, NDArray]:
    """What the decoder's network sees of an image: (3, h, w) about 0, and its steps."""
    import numpy as np

    size = (image.shape[0], image.shape[1])
    low, details = transform.forward(transform.to_ycbcr(image), transform.levels_for(*size))
    bands = quantization.quantize(details, size, step, tables, tables.rate_of(step), weight)
    coded = quantization.quantize_low(low, step)
    planes = transform.inverse(*quantization.dequantize(coded, bands, step))
    rgb = np.moveaxis(transform.to_rgb(planes), -1, 0) - np.float32(128)
    return rgb, quantization.step_map(bands, step, size)
