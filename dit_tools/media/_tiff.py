"""Which TIFFs are read right, what is done to their samples, and which are refused by name.

Pillow reads 8 bits, OpenCV deeper samples. Neither looks at all tags: what they would misread
(planes of 16 bits, signed samples, odd depths) is refused here, and what they leave undone
(premultiplied alpha, white as zero) is done here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np

BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, PREDICTOR = 258, 259, 262, 277, 284, 317
EXTRA, FORMAT = 338, 339
WHITE_IS_ZERO, YCBCR, LAB = 0, 6, (8, 9, 10)
UNSPECIFIED, PREMULTIPLIED = 0, 1
UNSIGNED, FLOAT, VOID = 1, 3, 4
JPEG = (6, 7)
PREDICTED = (5, 8, 32946, 34925, 50000)  # LZW, Deflate (two numbers), LZMA, Zstandard
SAVE = "save it as 8- or 16-bit RGB with straight alpha"


def depth(image: Any) -> int:
    """Bits of a sample: 8 (or less, or CMYK, which becomes 8), 16 or 32.

    Raises InputError for what would be misread.
    """
    depths = _values(image, BITS, (1,))
    formats, separate = set(_values(image, FORMAT, (1,))), _values(image, PLANAR, (1,))[0] == 2
    photometric, deepest = _values(image, PHOTOMETRIC, (1,))[0], max(depths)
    count, compression = _values(image, SAMPLES, (1,))[0], _values(image, COMPRESSION, (1,))[0]
    if _values(image, PREDICTOR, (1,))[0] != 1 and compression not in PREDICTED:
        raise InputError("a TIFF with a predictor but no compression for it is not read", SAVE)
    if not formats <= {UNSIGNED, FLOAT, VOID}:
        raise InputError("a TIFF with signed or complex samples is not read", SAVE)
    if deepest not in (1, 2, 4, 8, 16, 32) or len(set(depths)) > 1:
        raise InputError(f"a TIFF with {'/'.join(map(str, depths[:5]))} bits a sample is not read", SAVE)
    if photometric in LAB:
        raise InputError("a TIFF in CIELAB colours is not read", SAVE)
    if photometric == YCBCR and compression not in JPEG:
        raise InputError("a TIFF in YCbCr without JPEG compression is not read", SAVE)
    plain = image.mode in ("RGB", "RGBA", "CMYK", "YCbCr") and _values(image, EXTRA, (2,)) == (2,) and deepest <= 8
    if separate and count > 1 and not (plain or image.mode == "CMYK"):
        raise InputError(
            "a TIFF with its samples in separate planes is not read at this depth or with this alpha", SAVE
        )
    return 8 if image.mode == "CMYK" else {16: 16, 32: 32}.get(deepest, 8)


def finish(image: Any, pixels: np.ndarray, bits: int, notes: list[str]) -> np.ndarray:
    """Decoded samples (H, W, C) in [0, 1] by what the tags say: white first, alpha straight."""
    import numpy as np

    extra = _values(image, EXTRA, ())
    if UNSPECIFIED in extra or len(extra) > 1:
        notes.append("an extra channel of unknown meaning was left out")
    if bits == 8:
        return pixels
    if pixels.shape[2] == 1 and _values(image, PHOTOMETRIC, (1,))[0] == WHITE_IS_ZERO:
        pixels = 1 - pixels
    if pixels.shape[2] == 4 and extra[:1] == (UNSPECIFIED,):
        return pixels[:, :, :3]
    if pixels.shape[2] == 4 and extra[:1] == (PREMULTIPLIED,):
        alpha = pixels[:, :, 3:]
        colours = np.divide(pixels[:, :, :3], alpha, out=np.zeros_like(pixels[:, :, :3]), where=alpha > 0)
        return np.concatenate([colours.clip(0, 1), alpha], axis=2)
    return pixels


def compressed(image: Any) -> bool:
    """Whether the samples are packed in any way."""
    return _values(image, COMPRESSION, (1,))[0] != 1


def _values(image: Any, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = image.tag_v2.get(tag, default)
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
