"""Quantisation with a thought for the bits: rate-distortion optimised, pass by pass.

Each coefficient may be rounded to the nearest step, one step towards zero, or to zero; the choice
with the least distortion + lambda * bits is taken, the bits as the tables of the codec give them
in the context of what was decided before. The decoder knows nothing of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dit_tools.media.wavelet.contexts import PHASES, Level, band_sizes, level_of
from dit_tools.media.wavelet.entropy import ESCAPE, LARGEST, buckets_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dit_tools.media.wavelet.tables import Tables

LAMBDA = 0.14
"""Weight of a bit against the squared error in units of the squared step."""
LEVEL_WEIGHTS = (1.12, 1.0, 0.92, 0.88)
"""Steps of the levels, from the finest; the coarse ones matter more to MS-SSIM than to PSNR."""
COLOUR_WEIGHT = 1.1
"""The step of the colour planes against that of luma."""
MASKING = 0.22
"""Exponent of the step's growth with the variance of the coarser level."""
MASKED_VARIANCE = 10.0
"""Variance, in squared grey levels, from which errors begin to hide."""
MOST_MASKING = 4.0


def steps_of(step: float, levels: int) -> list[tuple[float, float]]:
    """Quantisation step of luma and of colour for each level, coarse to fine."""
    weights = [LEVEL_WEIGHTS[min(depth, len(LEVEL_WEIGHTS) - 1)] for depth in range(levels)]
    return [(step * weight, step * weight * COLOUR_WEIGHT) for weight in reversed(weights)]


def masking(coarser: list[list[NDArray]] | None, step: float, depth: int, grid: tuple[int, int]) -> NDArray | None:
    """How much coarser than the step a level is quantised, place by place.

    Errors hide where the image is busy, and SSIM divides them by the local variance. The variance
    is taken from the luma of the coarser level, which the decoder knows already.

    Args:
        coarser: The coarser level's subbands ``[orientation][channel]``, or None at the top.
        step: The luma step of that level.
        depth: The level, 0 the finest.
        grid: Rows and columns of the coarser level.

    Returns:
        Factors from one up, float32 (2 * rows, 2 * columns), or None for one everywhere.
    """
    import cv2
    import numpy as np

    if coarser is None or MASKING <= 0:
        return None
    energy = np.zeros(grid, np.float32)
    for orientation in range(3):
        band = coarser[orientation][0].astype(np.float32)
        energy[: band.shape[0], : band.shape[1]] += band * band
    variance = cv2.blur(energy, (3, 3), borderType=cv2.BORDER_REPLICATE)
    variance *= np.float32(step * step / 4.0 ** (depth + 2) / MASKED_VARIANCE)
    factor = np.minimum((1 + variance) ** np.float32(MASKING), np.float32(MOST_MASKING))
    return np.repeat(np.repeat(factor, 2, 0), 2, 1)


def dequantize(
    low: NDArray, bands: list[list[list[NDArray]]], step: float
) -> tuple[NDArray, list[tuple[NDArray, ...]]]:
    """Coefficients, as :func:`transform.inverse` takes them, of quantised subbands."""
    import numpy as np

    steps = steps_of(step, len(bands))
    details = []
    for index, level in enumerate(bands):
        factor = _level_mask(bands, steps, index)
        made = []
        for band in level:
            coefficients = np.stack(band).astype(np.float32)
            coefficients[0] *= np.float32(steps[index][0])
            coefficients[1:] *= np.float32(steps[index][1])
            if factor is not None:
                coefficients *= factor[: coefficients.shape[1], : coefficients.shape[2]]
            made.append(coefficients)
        details.append(tuple(made))
    return low.astype(np.float32) * np.float32(step), details


def step_map(bands: list[list[list[NDArray]]], step: float, size: tuple[int, int]) -> NDArray:
    """The local luma steps of the two finest levels on cells of 4 x 4 pixels, for the network.

    Returns:
        float32 (2, ceil(height / 4), ceil(width / 4)).
    """
    import numpy as np

    rows, columns = (size[0] + 3) // 4, (size[1] + 3) // 4
    steps = steps_of(step, len(bands))
    made = np.empty((2, rows, columns), np.float32)
    for depth in range(2):
        index = len(bands) - 1 - depth
        factor = _level_mask(bands, steps, index) if index >= 0 else None
        made[depth] = steps[index][0] if index >= 0 else step
        if factor is not None:
            # The finest level's factors come in pairs of 4 pixels, those of the next one of 8.
            found = factor[::2, ::2] if depth == 0 else factor
            made[depth] *= found[:rows, :columns]
    return made


def _level_mask(bands: list[list[list[NDArray]]], steps: list[tuple[float, float]], index: int) -> NDArray | None:
    if not index:
        return None
    coarser = bands[index - 1]
    grid = (coarser[0][0].shape[0], coarser[1][0].shape[1])
    return masking(coarser, steps[index - 1][0], len(steps) - 1 - index, grid)


def quantize_low(low: NDArray, step: float) -> NDArray:
    """The low pass band (3, rows, columns) in whole steps, int32."""
    import numpy as np

    return np.rint(low / np.float32(step)).astype(np.int32)


def quantize(
    details: list[tuple[NDArray, ...]],
    size: tuple[int, int],
    step: float,
    tables: Tables,
    rate: int,
    weight: float = LAMBDA,
) -> list[list[list[NDArray]]]:
    """Quantised subbands ``[level][orientation][channel]`` of a tile of that size, int32."""
    import numpy as np

    steps = steps_of(step, len(details))
    _, sizes = band_sizes(*size, len(details))
    made: list[list[list[NDArray]]] = []
    coarser: Level | None = None
    for index, detail in enumerate(details):
        level = level_of(sizes[index], coarser)
        depth = min(len(details) - 1 - index, tables.depths - 1)
        factor = _level_mask(made, steps, index)
        made.append([])
        for orientation in range(3):
            made[-1].append([])
            for channel in range(3):
                scaled = detail[orientation][channel] / np.float32(steps[index][channel > 0])
                if factor is not None:
                    scaled /= factor[: scaled.shape[0], : scaled.shape[1]]
                place = (orientation, channel, depth, rate)
                made[-1][-1].append(_quantize_band(scaled, level, place, tables, weight))
        coarser = level
    return made


def _quantize_band(
    scaled: NDArray, level: Level, place: tuple[int, int, int, int], tables: Tables, weight: float
) -> NDArray:
    import numpy as np

    orientation, channel, depth, rate = place
    nearest = np.rint(scaled).astype(np.int32)
    if not nearest.any():
        return nearest
    if weight <= 0:
        for phase, (a, b) in enumerate(PHASES):
            level.store(orientation, channel, phase, nearest[a::2, b::2])
        return nearest
    costs = _cost_table(tables, rate, depth, orientation, channel) * np.float32(weight)
    # Passes later than this one are judged by plain rounding with a dead zone.
    for phase, (a, b) in enumerate(PHASES):
        weights = tables.weights(rate, depth, orientation, channel, phase)
        predicted = level.predicted(orientation, channel, phase, weights)
        buckets = buckets_of(predicted, tables.lookup)
        chosen = _choose(scaled[a::2, b::2], nearest[a::2, b::2], buckets, costs, tables.shifts)
        nearest[a::2, b::2] = chosen
        level.store(orientation, channel, phase, chosen)
    if not nearest.any():
        level.stored[orientation][channel] = None
    return nearest


def _choose(scaled: NDArray, nearest: NDArray, buckets: NDArray, costs: NDArray, shifts: NDArray) -> NDArray:
    """The best of nearest, one less and zero for every coefficient that is not zero anyway."""
    import numpy as np

    best = nearest.copy()
    rows, columns = np.nonzero(nearest)
    if not len(rows):
        return best
    value, found, bucket = scaled[rows, columns], nearest[rows, columns], buckets[rows, columns]
    candidates = (found, found - np.sign(found), np.zeros_like(found))
    scores = []
    for candidate in candidates:
        high = candidate >> shifts[bucket]
        symbol = np.where(np.abs(high) > LARGEST, ESCAPE, high + LARGEST)
        scores.append((value - candidate) ** 2 + costs[bucket, symbol])
    pick = np.argmin(np.stack(scores), axis=0)
    best[rows, columns] = np.choose(pick, candidates)
    return best


def _cost_table(tables: Tables, rate: int, depth: int, orientation: int, channel: int) -> NDArray:
    import numpy as np

    group = (rate, depth, int(orientation == 2), min(channel, 1))
    buckets = range(len(tables.shifts))
    return np.stack([tables.costs((*group, bucket)) for bucket in buckets]).astype(np.float32)
