"""ICC profiles made of what files say in other words: PNG's gAMA, cHRM and cICP, AVIF's nclx.

Pixels are never changed: the profile says what their numbers mean, as the chunk did, and every
format that ``image.encode`` writes can carry it.

Sources: ICC.1:2022 (header, tags, parametric curves), ITU-T H.273 (code points), PNG third edition,
sections 4.3 (which chunk wins) and 11.3.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from dit_tools.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

D50 = (0.9642, 1.0, 0.8249)  # the white of an ICC profile
D65 = (0.3127, 0.3290)
BT709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
PRIMARIES = {  # code of H.273 -> x and y of red, green, blue; of white
    1: (BT709, D65),
    5: ((0.64, 0.33, 0.29, 0.60, 0.15, 0.06), D65),
    6: ((0.630, 0.340, 0.310, 0.595, 0.155, 0.070), D65),
    7: ((0.630, 0.340, 0.310, 0.595, 0.155, 0.070), D65),
    9: ((0.708, 0.292, 0.170, 0.797, 0.131, 0.046), D65),
    11: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320, 0.265, 0.690, 0.150, 0.060), D65),
}
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT709_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
CURVES = {1: BT709_CURVE, 4: (2.2,), 5: (2.8,), 6: BT709_CURVE, 8: (1.0,), 13: SRGB_CURVE}
CURVES |= {14: BT709_CURVE, 15: BT709_CURVE}
HDR = {16: "PQ", 18: "HLG"}
UNSPECIFIED = (0, 2)  # code points that say nothing
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))


@dataclass(frozen=True)
class ColourSpace:
    """What RGB numbers mean: chromaticities of red, green, blue and white, and the decoding curve.

    ``curve`` holds the parameters of an ICC parametric curve, (g) or (g, a, b, c, d).
    """

    primaries: tuple[float, ...] = BT709
    white: tuple[float, float] = D65
    curve: tuple[float, ...] = SRGB_CURVE

    def icc(self, grey: bool) -> bytes | None:
        """The profile; None for sRGB, which is what a file without a profile is taken as."""
        return None if self == ColourSpace() else _profile(self, grey)


def from_code_points(primaries: int, transfer: int) -> ColourSpace | None:
    """The space of H.273's numbers; None where they leave it open.

    Raises InputError for high dynamic range and for spaces that no profile here describes.
    """
    if transfer in HDR:
        raise InputError(f"high dynamic range ({HDR[transfer]}) is not read", "convert it to sRGB first")
    if primaries in UNSPECIFIED and transfer in UNSPECIFIED:
        return None
    red_to_blue, white = PRIMARIES.get(1 if primaries in UNSPECIFIED else primaries, (None, None))
    curve = CURVES.get(13 if transfer in UNSPECIFIED else transfer)
    if red_to_blue is None or white is None or curve is None:
        raise InputError(f"colours of kind {primaries}/{transfer} (H.273) are not read", "convert it to sRGB first")
    return ColourSpace(red_to_blue, white, curve)


def from_gamma(gamma: float | None, chromaticities: tuple[float, ...] | None) -> ColourSpace | None:
    """The space of PNG's gAMA (an encoding exponent) and cHRM (white, red, green, blue).

    None where the numbers describe no space (zero, negative, primaries on one line).
    """
    if gamma is not None and not 0.05 <= gamma <= 10:
        return None
    curve = SRGB_CURVE if gamma is None else (1 / gamma,)
    if chromaticities is None:
        return ColourSpace(curve=curve)
    (x, y), primaries = chromaticities[:2], tuple(chromaticities[2:])
    area = _area(primaries)
    if abs(area) < 1e-4 or min(y, *primaries[1::2]) <= 1e-3 or max(x, *chromaticities) > 1:
        return None
    return ColourSpace(primaries, (x, y), curve)


def _area(p: tuple[float, ...]) -> float:
    return (p[2] - p[0]) * (p[5] - p[1]) - (p[4] - p[0]) * (p[3] - p[1])


def as_colour(icc: bytes) -> bytes | None:
    """A grey profile as one for colour with the same curve; others as they are; None: damaged.

    A grey image that becomes colour would else carry a profile of the wrong kind.
    """
    if icc[16:20] != b"GRAY":
        return icc
    curve = _tag(icc, b"kTRC")
    if curve is None:
        return None
    return _assemble("dit: grey curve with sRGB primaries", b"RGB ", _columns(ColourSpace()), curve)


def _tag(icc: bytes, wanted: bytes) -> bytes | None:
    try:
        (count,) = struct.unpack_from(">I", icc, 128)
        for place in range(132, 132 + 12 * min(count, 100), 12):
            name, start, length = struct.unpack_from(">4sII", icc, place)
            if name == wanted and start + length <= len(icc):
                return icc[start : start + length]
    except struct.error:
        pass
    return None


@cache
def _profile(space: ColourSpace, grey: bool) -> bytes:
    kind = 0 if len(space.curve) == 1 else 3
    curve = b"para" + struct.pack(">IHH", 0, kind, 0) + b"".join(map(_fixed, space.curve))
    name = "dit: " + ("grey" if grey else ", ".join(f"{value:g}" for value in (*space.white, *space.primaries)))
    name += f", gamma {space.curve[0]:.4g}"
    return _assemble(name, b"GRAY" if grey else b"RGB ", None if grey else _columns(space), curve)


def _columns(space: ColourSpace) -> np.ndarray:
    """XYZ of red, green and blue in the columns, white moved to D50 (Bradford)."""
    import numpy as np

    x, y = np.asarray(space.primaries).reshape(3, 2).T
    colours = np.stack([x / y, np.ones(3), (1 - x - y) / y])
    wx, wy = space.white
    white = np.array([wx / wy, 1, (1 - wx - wy) / wy])
    matrix = colours * np.linalg.solve(colours, white)
    cones = np.asarray(_BRADFORD)
    scale = (cones @ np.asarray(D50)) / (cones @ white)
    return np.linalg.solve(cones, scale[:, None] * cones) @ matrix


def _assemble(name: str, space: bytes, columns: np.ndarray | None, curve: bytes) -> bytes:
    """A version 4 display profile."""
    tags: list[tuple[bytes, bytes]] = [
        (b"desc", _text(name)),
        (b"cprt", _text("No copyright, use freely")),
        (b"wtpt", _xyz(D50)),
    ]
    if columns is None:
        tags.append((b"kTRC", curve))
    else:
        tags += [(b"rgb"[i : i + 1] + b"XYZ", _xyz(columns[:, i])) for i in range(3)]
        tags += [(b"rgb"[i : i + 1] + b"TRC", curve) for i in range(3)]
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for label, content in tags:
        content += b"\0" * (-len(content) % 4)
        table += struct.pack(">4sII", label, start + len(body), len(content))
        body += content
    size = start + len(body)
    date = struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head = struct.pack(">II4s4s4s4s", size, 0, b"\x04\x40\0\0", b"mntr", space, b"XYZ ") + date + b"acsp"
    head += b"\0" * 28 + b"".join(map(_fixed, D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(float(value) * 65536))


def _xyz(values: tuple[float, ...] | np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _text(text: str) -> bytes:
    content = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(content), 28) + content
