"""Comparing a result with the image that it should be (``--reference``)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dit_tools.core.errors import InputError
from dit_tools.jobs.inputs import IMAGE_SUFFIXES
from dit_tools.media import samples
from dit_tools.media.samples import Photo, to_float

if TYPE_CHECKING:
    import numpy as np

LUMA = (65.481, 128.553, 24.966)  # ITU-R BT.601 in 8 bits, as papers on super-resolution use it
BORDER = 4  # pixels left out of psnr_y, as those papers do for x4
WINDOW = 11  # smallest side for SSIM


def load(reference: str, source: Path) -> Photo:
    """The reference of a source: the file itself, or the one of the same stem in a folder.

    Raises InputError when there is none.
    """
    path = Path(reference).expanduser()
    if not path.is_dir():
        return samples.load(path)
    for found in sorted(path.iterdir()):
        if found.stem == source.stem and found.suffix.lower() in IMAGE_SUFFIXES:
            return samples.load(found)
    raise InputError(f"--reference {reference}: nothing named {source.stem}", "give a file, or another folder")


def measured(made: Photo, wanted: Photo) -> dict[str, Any]:
    """PSNR of all channels (dB), of brightness without a border (``psnr_y``), and SSIM.

    A reference that is up to 7 pixels larger is cut at its right and lower edge: enlargements are
    whole multiples. Raises InputError for another size.
    """
    from dit_tools.methods.metrics.ssim import Ssim

    ours, theirs = _colours(made), _colours(wanted)
    spare = [b - a for a, b in zip(ours.shape, theirs.shape, strict=True)]
    if min(spare[:2]) < 0 or max(spare[:2]) > 7:
        sizes = f"{theirs.shape[1]}x{theirs.shape[0]}, the result {ours.shape[1]}x{ours.shape[0]}"
        raise InputError(f"the reference is {sizes}", "give one of the result's size")
    theirs = theirs[: ours.shape[0], : ours.shape[1]]
    facts: dict[str, Any] = {"psnr": _decibels(ours, theirs)}
    if min(ours.shape[:2]) > 2 * BORDER:
        inside = (slice(BORDER, -BORDER),) * 2
        facts["psnr_y"] = _decibels(_luma(ours[inside]), _luma(theirs[inside]))
    if min(ours.shape[:2]) >= WINDOW:
        pair = (x.transpose(2, 0, 1)[None] for x in (ours, theirs))
        facts["ssim"] = round(float(Ssim().of(*pair)[0]), 4)
    return facts


def _colours(photo: Photo) -> np.ndarray:
    """(H, W, 3), float32 in [0, 1], without alpha."""
    pixels = to_float(photo.samples)
    return pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _luma(pixels: np.ndarray) -> np.ndarray:
    import numpy as np

    return pixels @ (np.array(LUMA, np.float32) / np.float32(255))


def _decibels(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB; 200 where they are equal, for JSON's sake."""
    import numpy as np

    error = float(np.square(a - b, dtype=np.float64).mean())
    return round(-10 * math.log10(error), 3) if error > 1e-20 else 200.0
