"""The built-in codec: a fixed wavelet, integer context tables and a learned decoder."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import InputError, ModelError
from dit_tools.core.registry import method
from dit_tools.media import dit_file
from dit_tools.methods.codecs import Codec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dit_tools.media.dit_file import DitFile
    from dit_tools.media.wavelet.tables import Tables

TILE = 10
MARGIN = 32
"""Pixels that the network sees beyond its window, so that windows and tiles leave no seam."""
BEST_STEP, WORST_STEP = 1.5, 128.0


@method()
class Wavelet(Codec):
    """9/7 wavelet, integer context tables, and a small network that repairs what was lost.

    All rates come from one set of tables and one network. The step of quantisation grows where the
    image is busy, as errors hide there. Only integers decide how bytes are read.
    """

    number = 1
    worst = 9 * 128

    @cached_property
    def tables(self) -> Tables:
        """The integer tables of the built-in model."""
        from dit_tools.media.wavelet import tables

        return tables.built_in()

    @property
    def digest(self) -> bytes:
        """The digest of the tables."""
        return self.tables.digest

    def setting_of(self, quality: float) -> int:
        """Steps from 128 at quality 0 to 1.5 at quality 100, even in their logarithm."""
        import math

        from dit_tools.media.wavelet.tiles import SMALLEST_STEP, STEPS_PER_OCTAVE

        share = quality / 100
        step = WORST_STEP ** (1 - share) * BEST_STEP**share
        return round(STEPS_PER_OCTAVE * math.log2(step / SMALLEST_STEP))

    def pack(self, image: NDArray, setting: int) -> DitFile:
        """Code an image tile by tile."""
        from dit_tools.media.wavelet import tiles

        step = tiles.step_of(setting)
        rate = self.tables.rate_of(step)
        size, payloads, crc = (image.shape[0], image.shape[1]), [], 0
        for rows, columns in _tiles(size, TILE):
            part = image[slice(*rows), slice(*columns)]
            payload, low, bands = tiles.encode_tile(part, step, self.tables, rate)
            crc = tiles.checksum(low, bands, crc)
            payloads.append(payload)
        return dit_file.DitFile(self.number, self.tables.digest, size, setting, rate, TILE, tuple(payloads), crc)

    def unpack(self, file: DitFile, run: Any) -> NDArray:
        """Decode row of tiles by row of tiles, so that memory is bounded by three rows."""
        import numpy as np

        from dit_tools.media.wavelet import tiles

        self._check(file)
        image = np.empty((*file.size, 3), np.uint8)
        strips = _Strips(run, image, tiles.step_of(file.setting))
        for strip in self._strips(file):
            strips.add(*strip)
        strips.finish()
        return image

    def thumbnail(self, file: DitFile, longest: int) -> NDArray:
        """The coarse levels only: no network and no fine subbands."""
        import cv2
        import numpy as np

        from dit_tools.media.wavelet import tiles, transform

        self._check(file)
        left_out, crc, rows_made, row = 0, 0, [], []
        places = list(_tiles(file.size, file.tile))
        least = min(transform.levels_for(b - a, d - c) for (a, b), (c, d) in places)
        while left_out < least and max(file.size) >> (left_out + 1) >= longest:
            left_out += 1
        for payload, (rows, columns) in zip(file.tiles, places, strict=True):
            size = (rows[1] - rows[0], columns[1] - columns[0])
            low, bands = tiles.decode_tile(payload, size, self.tables, file.rate)
            crc = tiles.checksum(low, bands, crc)
            row.append(tiles.rebuild_small(low, bands, tiles.step_of(file.setting), left_out))
            if columns[1] == file.size[1]:
                rows_made.append(np.concatenate(row, 1))
                row = []
        _verify(crc, file)
        small = np.concatenate(rows_made)
        scale = min(1.0, longest / max(file.size))
        width, height = (max(1, round(side * scale)) for side in (file.size[1], file.size[0]))
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)

    def _check(self, file: DitFile) -> None:
        if file.codec != self.number:
            raise ModelError(f"a file of codec {file.codec}", "update dit")
        if file.digest != self.tables.digest:
            hint = f"it wants {file.digest.hex()}, this is {self.tables.digest.hex()}"
            raise ModelError("the file was made with other tables", hint)
        if file.rate >= self.tables.rates or file.setting > self.worst:
            raise InputError(f"damaged: rate {file.rate}, setting {file.setting}", "copy it here again")

    def _strips(self, file: DitFile) -> Iterator[tuple[NDArray, NDArray]]:
        """RGB (3, rows, width) about 0 and steps of every row of tiles, checked at the end."""
        import numpy as np

        from dit_tools.media.wavelet import tiles
        from dit_tools.media.wavelet.seams import even_out

        step, crc = tiles.step_of(file.setting), 0
        row: list[tuple[NDArray, NDArray]] = []
        for payload, (rows, columns) in zip(file.tiles, _tiles(file.size, file.tile), strict=True):
            size = (rows[1] - rows[0], columns[1] - columns[0])
            low, bands = tiles.decode_tile(payload, size, self.tables, file.rate)
            crc = tiles.checksum(low, bands, crc)
            row.append(tiles.rebuild(low, bands, step, size))
            if len(row) > 1:
                even_out(row[-2][0].swapaxes(1, 2), row[-1][0].swapaxes(1, 2), step)
            if columns[1] == file.size[1]:
                rgb, steps = (np.concatenate(part, 2) for part in zip(*row, strict=True))
                row = []
                if rows[1] == file.size[0]:
                    _verify(crc, file)
                yield rgb, steps


def _verify(crc: int, file: DitFile) -> None:
    if crc != file.symbols:
        message = "the decoded symbols do not match their checksum: this machine reads the tables otherwise"
        raise InputError(message, "nothing was decoded; please report it")


def _tiles(size: tuple[int, int], tile: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for rows in dit_file.tile_spans(size[0], tile):
        for columns in dit_file.tile_spans(size[1], tile):
            yield rows, columns


class _Strips:
    """Corrects rows of tiles by the network, each with a margin of its neighbours."""

    def __init__(self, run: Any, image: NDArray, step: float):
        self.run, self.image, self.row, self.step = run, image, 0, step
        self.above: tuple[NDArray, NDArray] | None = None
        self.here: tuple[NDArray, NDArray] | None = None

    def add(self, rgb: NDArray, steps: NDArray) -> None:
        """Take the next row of tiles; the one before can be finished now."""
        from dit_tools.media.wavelet.seams import even_out

        below = (rgb, steps)
        if self.here is not None:
            even_out(self.here[0], rgb, self.step)
            self._write(below)
        self.here = below

    def finish(self) -> None:
        """No more rows."""
        self._write(None)

    def _write(self, below: tuple[NDArray, NDArray] | None) -> None:
        import numpy as np

        assert self.here is not None
        rgb, steps = self.here
        height, top = rgb.shape[1], 0
        if self.run is not None:
            margin = MARGIN // 4
            parts = [self.here]
            if self.above is not None:
                parts.insert(0, (self.above[0][:, -MARGIN:], self.above[1][:, -margin:]))
                top = parts[0][0].shape[1]
            if below is not None:
                parts.append((below[0][:, :MARGIN], below[1][:, :margin]))
            joined = [np.concatenate(part, 1) for part in zip(*parts, strict=True)]
            rgb = corrected(joined[0], joined[1], self.run)[:, top : top + height]
        pixels = np.nan_to_num(rgb) + np.float32(128)
        np.clip(np.rint(pixels, out=pixels), 0, 255, out=pixels)
        self.image[self.row : self.row + height] = np.moveaxis(pixels, 0, -1)
        self.row += height
        self.above = self.here


def corrected(rgb: NDArray, steps: NDArray, run: Any) -> NDArray:
    """The network's output for RGB (3, h, w), in windows with a margin; edges are mirrored."""
    import numpy as np

    height, width = rgb.shape[1:]
    bottom, right = -height % 4 + 16, -width % 4 + 16
    rgb = np.pad(rgb, ((0, 0), (16, bottom), (16, right)), "symmetric" if min(height, width) >= 20 else "edge")
    steps = np.pad(steps, ((0, 0), (4, 4), (4, 4)), "edge")
    out = np.empty((3, height, width), np.float32)
    window = (1 << TILE) + 4 * MARGIN  # a row of tiles and its margins fit into one
    for y in range(0, height, window):
        for x in range(0, width, window):
            # Cells of 4 x 4 pixels, in the padded image; the window's own begin at 4.
            first = [max(0, (start + 16 - MARGIN) // 4) for start in (y, x)]
            last = [min(n, (s + 16 + window + MARGIN) // 4) for n, s in zip(steps.shape[1:], (y, x), strict=True)]
            cells = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
            inside = tuple(slice(4 * a, 4 * b) for a, b in zip(first, last, strict=True))
            made = run(rgb[(slice(None), *inside)][None], steps[(slice(None), *cells)][None])[0]
            rows, columns = min(window, height - y), min(window, width - x)
            up, left = y + 16 - 4 * first[0], x + 16 - 4 * first[1]
            out[:, y : y + rows, x : x + columns] = made[:, up : up + rows, left : left + columns]
    return out
