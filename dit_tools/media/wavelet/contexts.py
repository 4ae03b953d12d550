"""What the decoder already knows about a coefficient: weighted sums of decoded magnitudes.

A subband is coded in four passes, one for each parity of row and column, so that a whole pass is
one vector operation: the first pass sees other subbands only, the last two see all four
neighbours. A pass's context is an integer weighted sum of the magnitudes around a coefficient in
its own subband, in the coarser subband of the same orientation, and at the same place in the
orientations and colour planes coded before. Everything here is int32: the same bits everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Parity of row and column of each pass, in coding order."""
UNIT = 4096
"""A predicted magnitude of one, in the integer scale of the weights."""
CAP = 8191
"""Magnitudes above count as this in contexts, so that a sum stays below 2 ** 31."""
CROSS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
SQUARE = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))


class Tap(NamedTuple):
    """One neighbour: where its magnitude is stored, and the shift on the grid of a pass."""

    source: tuple[str, int]  # "own", "parent", "orientation" or "channel", and which
    parity: tuple[int, int]
    dy: int
    dx: int


@lru_cache
def taps(orientation: int, channel: int, phase: int) -> tuple[Tap, ...]:
    """The neighbours of a pass, in the order of its weights."""
    a, b = PHASES[phase]
    done = PHASES[:phase]
    found: list[Tap] = []

    def add(source: tuple[str, int], dy: int, dx: int, known: tuple = PHASES) -> None:
        parity = ((a + dy) & 1, (b + dx) & 1)
        if parity in known:
            found.append(Tap(source, parity, (a + dy) >> 1, (b + dx) >> 1))

    for dy in range(-2, 3):
        for dx in range(-2, 3):
            add(("own", 0), dy, dx, done)
    found.extend(Tap(("parent", 0), (0, 0), dy, dx) for dy, dx in SQUARE)
    for other in range(orientation):
        for dy, dx in CROSS:
            add(("orientation", other), dy, dx)
    for other in range(channel):
        for dy, dx in CROSS:
            add(("channel", other), dy, dx)
    return tuple(found)


@dataclass
class Level:
    """Decoded magnitudes of one level's subbands, by orientation and channel.

    ``grid`` is the size of a pass of the largest subband; ``stored[o][c]`` has the four passes as
    (2, 2, rows + 2, columns + 2), zero where nothing was decoded; ``parents`` the same of the
    coarser level on this grid, (rows + 2, columns + 2).
    """

    sizes: tuple[tuple[int, int], ...]  # of hl, lh, hh
    grid: tuple[int, int]
    parents: list[list[NDArray | None]]
    stored: list[list[NDArray | None]] = field(default_factory=lambda: [[None] * 3 for _ in range(3)])

    def source(self, tap: Tap, orientation: int, channel: int) -> NDArray | None:
        """The magnitudes that a tap reads, or None where all of them are zero."""
        kind, other = tap.source
        if kind == "parent":
            return self.parents[orientation][channel]
        if kind == "orientation":
            band = self.stored[other][channel]
        elif kind == "channel":
            band = self.stored[orientation][other]
        else:
            band = self.stored[orientation][channel]
        return None if band is None else band[tap.parity]

    def predicted(self, orientation: int, channel: int, phase: int, weights: NDArray) -> NDArray:
        """Predicted magnitudes (rows, columns) of a pass, int32 in units of 1/4096.

        Args:
            orientation: 0 for hl, 1 for lh, 2 for hh.
            channel: 0 for luma, 1 and 2 for colour.
            phase: which pass.
            weights: The constant, then one weight a tap; int32, not negative.
        """
        import numpy as np

        rows, columns = self.grid
        total = np.full(self.grid, weights[0], np.int32)
        product = np.empty(self.grid, np.int32)
        for tap, weight in zip(taps(orientation, channel, phase), weights[1:], strict=True):
            source = self.source(tap, orientation, channel) if weight else None
            if source is not None:
                top, left = 1 + tap.dy, 1 + tap.dx
                np.multiply(source[top : top + rows, left : left + columns], weight, out=product)
                total += product
        height, width = self.pass_size(orientation, phase)
        return total[:height, :width]

    def pass_size(self, orientation: int, phase: int) -> tuple[int, int]:
        """Rows and columns of a pass of one orientation's subband."""
        height, width = self.sizes[orientation]
        a, b = PHASES[phase]
        return (height + 1 - a) // 2, (width + 1 - b) // 2

    def store(self, orientation: int, channel: int, phase: int, values: NDArray) -> None:
        """Remember what a pass decoded; values are signed."""
        import numpy as np

        rows, columns = self.grid
        band = self.stored[orientation][channel]
        if band is None:
            band = np.zeros((2, 2, rows + 2, columns + 2), np.int32)
            self.stored[orientation][channel] = band
        height, width = values.shape
        inside = band[PHASES[phase]][1 : 1 + height, 1 : 1 + width]
        np.minimum(np.abs(values), CAP, out=inside)

    def as_parents(self) -> list[list[NDArray | None]]:
        """The magnitudes on the finer level's grid."""
        return [[None if band is None else _merged(band, self.grid) for band in row]
                for row in self.stored]  # fmt: skip


def _merged(band: NDArray, grid: tuple[int, int]) -> NDArray:
    import numpy as np

    rows, columns = grid
    merged = np.zeros((2 * rows + 2, 2 * columns + 2), np.int32)
    for a, b in PHASES:
        merged[1 + a : -1 : 2, 1 + b : -1 : 2] = band[a, b, 1:-1, 1:-1]
    return merged


def band_sizes(height: int, width: int, levels: int) -> tuple[tuple[int, int], list[tuple[tuple[int, int], ...]]]:
    """Size of the low pass band and, from coarse to fine, the sizes of each level's subbands."""
    sizes = []
    for _ in range(levels):
        low_h, low_w = (height + 1) // 2, (width + 1) // 2
        sizes.append(((low_h, width // 2), (height // 2, low_w), (height // 2, width // 2)))
        height, width = low_h, low_w
    return (height, width), sizes[::-1]


def level_of(sizes: tuple[tuple[int, int], ...], coarser: Level | None) -> Level:
    """An empty level with the context of the coarser one."""
    rows, columns = (sizes[0][0] + 1) // 2, (sizes[1][1] + 1) // 2
    empty: list[list[NDArray | None]] = [[None] * 3 for _ in range(3)]
    return Level(sizes, (rows, columns), coarser.as_parents() if coarser else empty)
