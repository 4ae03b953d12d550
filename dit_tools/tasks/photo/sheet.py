"""The side-by-side sheet of ``--compare``: the photograph before and after, and its reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dit_tools.jobs.atomic import atomic_write
from dit_tools.jobs.names import unique
from dit_tools.media import image
from dit_tools.media.samples import Photo, to_float
from dit_tools.media.sheet import contact_sheet

if TYPE_CHECKING:
    import numpy as np

LONGEST = 2048  # pixels of a photograph's longer side on the sheet


def write_sheet(result: Path, before: Photo, after: Photo, wanted: Photo | None, overwrite: bool) -> Path:
    """Write ``NAME-compare.png`` next to a result; its path, numbered where that exists and stays.

    Raises InputError when it cannot be written.
    """
    shown = [("before", before), ("after", after), *([("reference", wanted)] if wanted else [])]
    sheet = contact_sheet([_fitted(photo) for _, photo in shown], len(shown), [name for name, _ in shown])
    path = result.with_name(f"{result.stem}-compare.png")
    path = path if overwrite else unique(path)
    atomic_write(path, image.encode(sheet, "png"))
    return path


def _fitted(photo: Photo) -> np.ndarray:
    """The photograph as floats, made smaller where it is larger than the sheet shows."""
    import cv2

    longer = max(photo.size)
    samples = photo.samples
    if longer > LONGEST:
        height, width = (max(1, round(side * LONGEST / longer)) for side in photo.size)
        samples = cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)
        samples = samples.reshape(height, width, -1)
    return to_float(samples)
