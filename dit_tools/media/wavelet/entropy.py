"""Integers to bytes and back: coefficient passes through constriction's range coder.

Every coefficient is coded with one of the tables of 16-bit frequencies that the model file holds,
chosen by its context. No probability is computed at run time. The tables reach the coder as
doubles that hold these integers exactly, so that no rounding depends on the machine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from dit_tools.core.errors import InputError
from dit_tools.media.wavelet.contexts import UNIT, Level, band_sizes, level_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dit_tools.media.wavelet.tables import Tables

LARGEST = 14
"""Values of greater magnitude are coded as an escape and an Exp-Golomb number."""
SYMBOLS = 2 * LARGEST + 2
ESCAPE = SYMBOLS - 1
LOW_BITS = 16
"""The most low bits that the low pass band's differences may be coded raw with."""
ESCAPE_BITS = 20
"""The most bits of an escaped number; images and steps give 16 at most."""
RATIO = 1.3
SMALLEST = 0.004
BUCKETS = 48


class Coder(Protocol):
    """One interface for writing, reading and counting, so that all three take the same path."""

    def symbols(self, key: Any, count: int, values: NDArray | None) -> NDArray:
        """Code ``count`` symbols with the table of that key; returns them."""
        ...

    def raw(self, size: int, count: int, values: NDArray | None) -> NDArray:
        """Code ``count`` numbers below ``size``, all equally likely."""
        ...


def _stream() -> Any:
    import constriction  # it has no types

    return constriction.stream  # type: ignore[attr-defined]


class Writer:
    """Encodes into a range coder."""

    def __init__(self, tables: Tables):
        stream = _stream()
        self.models, self.uniform = tables.models, stream.model.Uniform
        self.coder = stream.queue.RangeEncoder()

    def symbols(self, key: Any, count: int, values: NDArray | None) -> NDArray:
        """Write the symbols."""
        assert values is not None
        if count:
            self.coder.encode(values, self.models(key))
        return values

    def raw(self, size: int, count: int, values: NDArray | None) -> NDArray:
        """Write numbers below ``size``."""
        assert values is not None
        if count and size > 1:
            self.coder.encode(values, self.uniform(size))
        return values

    def bytes(self) -> bytes:
        """All that was written; trailing zeros are left out, the reader supplies them."""
        return self.coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


class Reader:
    """Decodes from bytes; past their end it reads zeros. Raises InputError where damage shows."""

    def __init__(self, tables: Tables, payload: bytes):
        import numpy as np

        stream = _stream()
        self.models, self.uniform = tables.models, stream.model.Uniform
        words = np.frombuffer(payload + b"\0" * (-len(payload) % 4), "<u4").astype(np.uint32)
        self.coder = stream.queue.RangeDecoder(words)

    def symbols(self, key: Any, count: int, values: NDArray | None = None) -> NDArray:
        """Read the symbols."""
        return self._read(self.models(key), count)

    def raw(self, size: int, count: int, values: NDArray | None = None) -> NDArray:
        """Read numbers below ``size``."""
        return self._read(self.uniform(size) if size > 1 else None, count)

    def _read(self, model: Any, count: int) -> NDArray:
        import numpy as np

        if not count or model is None:
            return np.zeros(count, np.int32)
        try:
            return self.coder.decode(model, count)
        except AssertionError:  # so the coder says that no encoder could have written this
            raise InputError("damaged: the coded pixels make no sense", "copy the file here again") from None


class Counter:
    """Counts symbols by table instead of writing them; also adds up the cost in bits."""

    def __init__(self, tables: Tables):
        self.tables, self.bits = tables, 0.0
        self.counts: dict[Any, NDArray] = {}
        self.keep = False

    def symbols(self, key: Any, count: int, values: NDArray | None) -> NDArray:
        """Count the symbols."""
        import numpy as np

        assert values is not None
        counted = np.bincount(values, minlength=len(self.tables.costs(key)))
        self.bits += float(counted @ self.tables.costs(key))
        if self.keep:
            self.counts[key] = self.counts.get(key, 0) + counted
        return values

    def raw(self, size: int, count: int, values: NDArray | None) -> NDArray:
        """Count the bits of evenly distributed numbers."""
        assert values is not None
        self.bits += count * math.log2(size)
        return values


def thresholds() -> tuple[NDArray, NDArray]:
    """The table of buckets by predicted magnitude (in 1/512), and the raw low bits of a bucket.

    Buckets are spaced by 1.3; where eight or more is predicted the low bits of a coefficient are
    as good as random and go around the tables.
    """
    import numpy as np

    edges = np.rint(SMALLEST * UNIT * RATIO ** np.arange(BUCKETS - 1)).astype(np.int64)
    lookup = np.searchsorted(edges, np.arange(1 << 18) * 8 + 4, side="right").astype(np.uint8)
    lower = np.concatenate([[0], edges])
    shifts = np.array([max(0, int(edge).bit_length() - 15) for edge in lower], np.int32)
    return lookup, shifts


def buckets_of(predicted: NDArray, lookup: NDArray) -> NDArray:
    """The bucket of each predicted magnitude; uint8, same shape."""
    import numpy as np

    return lookup[np.minimum(predicted >> 3, len(lookup) - 1)]


def code_pass(
    coder: Coder, group: tuple[int, ...], buckets: NDArray, shifts: NDArray, values: NDArray | None
) -> NDArray:
    """Code one pass: values (rows, columns) int32, or None to read them; returns them."""
    import numpy as np

    flat = buckets.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.cumsum(np.bincount(flat, minlength=BUCKETS))
    given = None if values is None else values.ravel()[order]
    coded = np.empty(flat.size, np.int32)
    start = 0
    for bucket, end in enumerate(ends.tolist()):
        if end > start:
            part = None if given is None else given[start:end]
            coded[start:end] = code_values(coder, (*group, bucket), int(shifts[bucket]), end - start, part)
            start = end
    result = np.empty(flat.size, np.int32)
    result[order] = coded
    return result.reshape(buckets.shape)


def code_values(coder: Coder, key: Any, shift: int, count: int, values: NDArray | None) -> NDArray:
    """Code signed integers with one table, their ``shift`` low bits raw, outliers as escapes."""
    import numpy as np

    high = None if values is None else values >> shift
    symbols = None
    if high is not None:
        symbols = np.where(np.abs(high) > LARGEST, ESCAPE, high + LARGEST).astype(np.int32)
    symbols = coder.symbols(key, count, symbols)
    result = symbols - LARGEST
    escaped = np.flatnonzero(symbols == ESCAPE)
    if len(escaped):
        part = None if high is None else high[escaped]
        result[escaped] = _code_escapes(coder, len(escaped), part)
    if shift:
        low = None if values is None else (values & ((1 << shift) - 1)).astype(np.int32)
        low = coder.raw(1 << shift, count, low)
        result = (result << shift) | low
    return result


def _code_escapes(coder: Coder, count: int, values: NDArray | None) -> NDArray:
    """Values beyond the table: sign, number of bits and bits of the excess (Exp-Golomb)."""
    import numpy as np

    sign = excess = lengths = None
    if values is not None:
        sign = (values < 0).astype(np.int32)
        excess = np.abs(values) - LARGEST  # from 1
        lengths = (np.frexp(excess.astype(np.float64))[1] - 1).astype(np.int32)
    sign = coder.raw(2, count, sign)
    lengths = coder.raw(ESCAPE_BITS, count, lengths)
    result = np.empty(count, np.int32)
    for length in np.unique(lengths).tolist():
        chosen = lengths == length
        rest = None if excess is None else (excess[chosen] - (1 << length)).astype(np.int32)
        rest = coder.raw(1 << length, int(chosen.sum()), rest)
        result[chosen] = (1 << length) + rest
    result += LARGEST
    return np.where(sign == 1, -result, result)


def code_low(coder: Coder, size: tuple[int, int], values: NDArray | None) -> NDArray:
    """Code the low pass band (3, rows, columns): differences from left, or from above."""
    import numpy as np

    result = np.empty((3, *size), np.int32)
    for channel in range(3):
        delta = shift = None
        if values is not None:
            plane = values[channel]
            delta = np.diff(plane, axis=1, prepend=0)
            delta[:, 0] = np.diff(plane[:, 0], prepend=0)
            delta = delta.ravel().astype(np.int32)
            spread = int(np.abs(delta).mean())
            shift = np.array([min(LOW_BITS - 1, (spread // 3).bit_length())], np.int32)
        shift = int(coder.raw(LOW_BITS, 1, shift)[0])
        delta = code_values(coder, ("low", min(channel, 1)), shift, size[0] * size[1], delta)
        delta = delta.reshape(size)
        delta[:, 0] = np.cumsum(delta[:, 0])
        result[channel] = np.cumsum(delta, axis=1)
    return result


def code_tile(
    coder: Coder,
    tables: Tables,
    size: tuple[int, int],
    levels: int,
    rate: int,
    bands: list[list[list[NDArray]]] | None = None,
    low: NDArray | None = None,
) -> tuple[NDArray, list[list[list[NDArray]]]]:
    """Code all subbands of a tile: those given, or None to read them.

    Args:
        coder: A writer, reader or counter.
        tables: The integer tables of the model.
        size: Height and width of the tile.
        levels: How often it was halved.
        rate: The class of rates whose tables are used.
        bands: ``bands[level][orientation][channel]`` int32 (rows, columns), coarse to fine.
        low: The low pass band (3, rows, columns) int32.

    Returns:
        The low pass band and the subbands.
    """
    low_size, sizes = band_sizes(*size, levels)
    low = code_low(coder, low_size, low)
    out: list[list[list[NDArray]]] = []
    coarser: Level | None = None
    for index in range(levels):
        level = level_of(sizes[index], coarser)
        depth = min(levels - 1 - index, tables.depths - 1)
        given = None if bands is None else bands[index]
        out.append(_code_level(coder, tables, level, depth, rate, given))
        coarser = level
    return low, out


def _code_level(
    coder: Coder, tables: Tables, level: Level, depth: int, rate: int, given: list[list[NDArray]] | None
) -> list[list[NDArray]]:
    import numpy as np

    made: list[list[NDArray]] = []
    for orientation in range(3):
        made.append([])
        for channel in range(3):
            values = None if given is None else given[orientation][channel]
            flag = None if values is None else np.array([int(values.any())], np.int32)
            band = np.zeros(level.sizes[orientation], np.int32)
            if coder.symbols(("flag", rate, depth, orientation, channel), 1, flag)[0]:
                code_band(coder, tables, level, (orientation, channel, depth, rate), band, values)
            made[-1].append(band)
    return made


def code_band(
    coder: Coder, tables: Tables, level: Level, place: tuple[int, int, int, int], band: NDArray, values: NDArray | None
) -> None:
    """Code one subband pass by pass into ``band`` and remember its magnitudes in ``level``."""
    from dit_tools.media.wavelet.contexts import PHASES

    orientation, channel, depth, rate = place
    for phase, (a, b) in enumerate(PHASES):
        weights = tables.weights(rate, depth, orientation, channel, phase)
        predicted = level.predicted(orientation, channel, phase, weights)
        buckets = buckets_of(predicted, tables.lookup)
        group = (rate, depth, int(orientation == 2), min(channel, 1))
        given = None if values is None else values[a::2, b::2]
        coded = code_pass(coder, group, buckets, tables.shifts, given)
        band[a::2, b::2] = coded
        level.store(orientation, channel, phase, coded)
