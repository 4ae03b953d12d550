"""The photographs that the codec is trained on, read straight from their archives."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dit_tools.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARCHIVES = ("photos/cc0_budgie.tar", "photos/cc0_photos.tar", "clothing/clothing_cc0.tar")
"""The archives below the data folder, each with a licence that allows a model to be shipped."""
SUFFIXES = (".webp", ".png", ".jpg", ".jpeg")


def photographs(data: Path, archives: tuple[str, ...] = ARCHIVES, every: int = 1,
                shortest: int = 256) -> Iterator[tuple[str, NDArray]]:  # fmt: skip
    """Name and uint8 RGB image (height, width, 3) of every n-th photograph of the archives.

    Args:
        data: Folder that holds the archives.
        archives: Paths of tar files below it.
        every: Take one of so many.
        shortest: Skip images whose shorter side is below this.

    Raises:
        InputError: An archive is missing.
    """
    import numpy as np
    from PIL import Image

    for archive in archives:
        path = data / archive
        if not path.is_file():
            raise InputError(f"{path}: no such archive of photographs", "set --data or DIT_DATA")
        with tarfile.open(path) as tar:
            members = [m for m in tar if m.isfile() and m.name.lower().endswith(SUFFIXES)]
            for member in sorted(members, key=lambda m: m.name)[::every]:
                file = tar.extractfile(member)
                assert file is not None
                with Image.open(io.BytesIO(file.read())) as image:
                    if min(image.size) >= shortest:
                        yield member.name, np.asarray(image.convert("RGB"))
