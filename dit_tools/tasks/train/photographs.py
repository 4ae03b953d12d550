"""Photographs from tar files, and training patches cut from them.

A step's patches depend on the recipe's seed and the step's number alone, so that a run that was
stopped goes on with the very same patches.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dit_tools.core.errors import InputError
from dit_tools.methods import degradation
from dit_tools.tasks.train.photo_recipe import Archive, PhotoRecipe

SUFFIXES = (".webp", ".png", ".jpg", ".jpeg", ".tif", ".tiff")
MARGIN = 8  # input pixels around a super-resolution patch: what the cubic filters see
JPEG_CELL = 16  # pixels of a compressed cell with halved colour: patches start anywhere in it
LARGEST = 1 << 26  # bytes of one archive member

Photographs = list[np.ndarray]


def data_root(folder: str | None = None) -> Path:
    """The data folder: the one given, else ``$DIT_DATA``. Raises InputError when there is none."""
    chosen = folder or os.environ.get("DIT_DATA", "")
    if not chosen:
        raise InputError("no data folder", "give --data FOLDER, or set DIT_DATA")
    if not Path(chosen).is_dir():
        raise InputError(f"{chosen}: no such folder", "correct --data or DIT_DATA")
    return Path(chosen)


def read(archive: Archive, root: Path, tell: Callable[[dict[str, Any]], None]) -> Photographs:
    """Every photograph of an archive, uint8 (H, W, 3). Skips and tells what does not decode.

    Raises InputError when the archive cannot be read or holds none.
    """
    path = root / archive.archive
    found: Photographs = []
    try:
        with tarfile.open(path) as stream:
            members = [m for m in stream if m.isfile() and m.name.lower().endswith(SUFFIXES)]
            for member in sorted(members, key=lambda m: m.name):
                image = _decode(stream, member, archive.reduce, path, tell)
                if image is not None:
                    found.append(image)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path}: cannot be read: {error}", "see the recipe's [[data]]") from None
    if not found:
        raise InputError(f"{path}: holds no photographs", f"one of {', '.join(SUFFIXES)}")
    return found


def _decode(
    stream: tarfile.TarFile, member: tarfile.TarInfo, reduce: int, path: Path,
    tell: Callable[[dict[str, Any]], None],
) -> np.ndarray | None:  # fmt: skip
    from PIL import Image

    opened = stream.extractfile(member) if member.size <= LARGEST else None
    try:
        if opened is None:
            raise ValueError("too large")
        image = Image.open(io.BytesIO(opened.read())).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        name = f"{path}:{member.name}"
        tell({"type": "skipped", "file": name, "reason": str(error)})
        return None
    return np.asarray(image.reduce(reduce) if reduce > 1 else image)


class Patches:
    """Batches of training pairs of a recipe.

    Args:
        recipe: says which archives, patch sizes and damages.
        archives: the photographs of each ``[[data]]``, in its order.
    """

    def __init__(self, recipe: PhotoRecipe, archives: list[Photographs]):
        self.recipe, self.archives = recipe, archives
        self.shares = _normal([each.share for each in recipe.data])
        self.mix = [degradation.parse(each.degrade) for each in recipe.mix]
        self.mix_shares = _normal([each.share for each in recipe.mix]) if self.mix else None

    def upscaling(self, step: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Scale, inputs (B, p, p, 3) and wanted residuals (B, scale p, scale p, 3), float32."""
        rng = np.random.default_rng([self.recipe.seed, step])
        training, network = self.recipe.training, self.recipe.network
        scale = int(rng.choice(network.scales, p=_normal(training.scale_shares)))
        pairs = [self._upscaling_pair(scale, rng) for _ in range(training.batch_size)]
        return scale, np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])

    def _upscaling_pair(self, scale: int, rng: Any) -> tuple[np.ndarray, np.ndarray]:
        from PIL import Image

        from dit_tools.media.resample import cubic

        size = self.recipe.training.patch + 2 * MARGIN
        large = self._crop(size * scale, rng)
        resized = Image.fromarray(large).resize((size, size), Image.Resampling.BICUBIC)
        small = np.asarray(resized, np.float32) / np.float32(255)
        wanted = large.astype(np.float32) / np.float32(255) - cubic(small, large.shape[:2])
        inner, outer = slice(MARGIN, -MARGIN), slice(MARGIN * scale, -MARGIN * scale)
        return small[inner, inner], wanted[outer, outer]

    def restoring(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Spoilt inputs (B, p, p, 3) and wanted residuals of the same shape, float32."""
        rng = np.random.default_rng([self.recipe.seed, step])
        pairs = [self._restoring_pair(rng) for _ in range(self.recipe.training.batch_size)]
        return np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])

    def _restoring_pair(self, rng: Any) -> tuple[np.ndarray, np.ndarray]:
        patch = self.recipe.training.patch
        chain = self.mix[rng.choice(len(self.mix), p=self.mix_shares)]
        clean = self._crop(patch + JPEG_CELL, rng).astype(np.float32) / np.float32(255)
        spoilt = chain.apply(clean, rng)
        top, left = rng.integers(JPEG_CELL + 1, size=2)
        part = (slice(top, top + patch), slice(left, left + patch))
        return spoilt[part], (clean - spoilt)[part]

    def _crop(self, size: int, rng: Any) -> np.ndarray:
        """A random square of a random photograph, turned, mirrored and perhaps made smaller."""
        from PIL import Image

        training = self.recipe.training
        photographs = self.archives[rng.choice(len(self.archives), p=self.shares)]
        image = photographs[rng.integers(len(photographs))]
        low, high = training.rescale
        factor = low + (high - low) * rng.random() if rng.random() < training.rescaled else 1.0
        limit = min(image.shape[:2])
        taken = min(max(size, round(size / factor)), limit)
        top, left = (rng.integers(side - taken + 1) for side in image.shape[:2])
        part = image[top : top + taken, left : left + taken]
        if taken != size:
            made = Image.fromarray(part).resize((size, size), Image.Resampling.BICUBIC)
            part = np.asarray(made)
        part = np.rot90(part, rng.integers(4))
        return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)


def _normal(shares: Any) -> np.ndarray:
    values = np.asarray(shares, float)
    return values / values.sum()
