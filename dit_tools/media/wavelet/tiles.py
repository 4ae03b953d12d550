"""One tile of an image to bytes and back: transform, quantisation and entropy coding together."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from dit_tools.media.wavelet import quantize as quantization
from dit_tools.media.wavelet import transform
from dit_tools.media.wavelet.entropy import Reader, Writer, code_tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dit_tools.media.wavelet.tables import Tables

Bands = list[list[list["NDArray"]]]
STEPS_PER_OCTAVE = 128
SMALLEST_STEP = 0.5
WORST = 9 * STEPS_PER_OCTAVE


def step_of(setting: int) -> float:
    """The quantisation step of a setting: it doubles every 128."""
    return SMALLEST_STEP * 2.0 ** (setting / STEPS_PER_OCTAVE)


def encode_tile(image: NDArray, step: float, tables: Tables, rate: int) -> tuple[bytes, NDArray, Bands]:
    """Code a tile (height, width, 3) uint8; its payload, low pass band and subbands."""
    size = (image.shape[0], image.shape[1])
    low, details = transform.forward(transform.to_ycbcr(image), transform.levels_for(*size))
    bands = quantization.quantize(details, size, step, tables, rate)
    coded = quantization.quantize_low(low, step)
    writer = Writer(tables)
    code_tile(writer, tables, size, len(bands), rate, bands, coded)
    return writer.bytes() or b"\0", coded, bands


def decode_tile(payload: bytes, size: tuple[int, int], tables: Tables, rate: int) -> tuple[NDArray, Bands]:
    """The low pass band and the subbands that a payload holds; any payload gives some."""
    return code_tile(Reader(tables, payload), tables, size, transform.levels_for(*size), rate)


def checksum(low: NDArray, bands: Bands, before: int = 0) -> int:
    """CRC-32 of all symbols of a tile, little-endian, continued from the tiles before."""
    import numpy as np

    for values in (low, *(band for level in bands for row in level for band in row)):
        before = zlib.crc32(np.ascontiguousarray(values, "<i4").data, before)
    return before


def rebuild(low: NDArray, bands: Bands, step: float, size: tuple[int, int]) -> tuple[NDArray, NDArray]:
    """What the network corrects: RGB (3, height, width) about 0, and its :func:`step_map`."""
    import numpy as np

    planes = transform.inverse(*quantization.dequantize(low, bands, step))
    rgb = np.moveaxis(transform.to_rgb(planes), -1, 0) - np.float32(128)
    return rgb, quantization.step_map(bands, step, size)


def rebuild_small(low: NDArray, bands: Bands, step: float, left_out: int) -> NDArray:
    """The tile at ``2 ** -left_out`` of its size: RGB (h, w, 3) uint8, from the coarse levels."""
    import numpy as np

    base, details = quantization.dequantize(low, bands, step)
    planes = transform.inverse(base, details[: len(details) - left_out]) / np.float32(2.0**left_out)
    return np.clip(np.rint(transform.to_rgb(planes)), 0, 255).astype(np.uint8)
