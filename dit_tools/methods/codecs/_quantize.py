"""Quantisation with a thought for the bits: rate-distortion optimised, pass by pass.

Each coefficient may be rounded to the nearest step, one step towards zero, or to zero; the choice
with the least distortion + lambda * bits is taken, the bits as the tables of the codec give them
in the context of what was decided before. The decoder knows nothing of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dit_tools.methods.codecs._contexts import PHASES, Level, band_sizes, level_of
from dit_tools.methods.codecs._entropy import ESCAPE, LARGEST, buckets_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dit_tools.methods.codecs._tables import Tables

LAMBDA = 0.14
"""Weight of a bit against the squared error in units of the squared step."""


def steps_of(step, levels):
    import os
    W=[float(x) for x in os.environ.get("W","1,1,1,1,1,1,1").split(",")]; C=float(os.environ.get("CH","1"))
    return [tuple((step*W[levels-1-i], step*W[levels-1-i]*C, step*W[levels-1-i]*C) for _ in range(3)) for i in range(levels)]
def steps_of_old(step: float, levels: int):
    """Quantisation steps ``[level][orientation][channel]``, coarse to fine."""
    return [tuple((step, step, step) for _ in range(3)) for _ in range(levels)]


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

    levels = len(details)
    steps = steps_of(step, levels)
    _, sizes = band_sizes(*size, levels)
    made: list[list[list[NDArray]]] = []
    coarser: Level | None = None
    for index in range(levels):
        level = level_of(sizes[index], coarser)
        depth = min(levels - 1 - index, tables.depths - 1)
        rows: list[list[NDArray]] = []
        for orientation in range(3):
            rows.append([])
            for channel in range(3):
                scaled = details[index][orientation][channel] / np.float32(
                    steps[index][orientation][channel]
                )
                place = (orientation, channel, depth, rate)
                rows[-1].append(_quantize_band(scaled, level, place, tables, weight))
        made.append(rows)
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


def _choose(
    scaled: NDArray, nearest: NDArray, buckets: NDArray, costs: NDArray, shifts: NDArray
) -> NDArray:
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
