"""The extra step of ``--noise oms`` for a model, fitted to captioned images: ``dit train --terminal-step``.

The model's own text encoder and autoencoder are used; its transformer is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dit_tools.core.arrays import to_numpy
from dit_tools.core.errors import ModelError
from dit_tools.core.size import Size
from dit_tools.models import one_more_step
from dit_tools.models.family import ConditionRequest
from dit_tools.tasks.train import image_folder

BATCH = 16  # images that go through the autoencoder together


def fit_images(model: Any, pixels: np.ndarray, captions: Sequence[str], ridge: float) -> Any:
    """The step of images, uint8 (N, 4, size, size), and their captions."""
    size, text, latents = pixels.shape[-1], [], []
    channels = 4 if model.alpha else 3
    for start in range(0, len(captions), BATCH):
        words = tuple(captions[start : start + BATCH])
        asked = ConditionRequest(words, ("",) * len(words), Size.square(size), ("cond",))
        text.append(one_more_step.pooled(model.encode(asked)["cond"]))
        part = pixels[start : start + BATCH, :channels].astype(np.float32) / 255
        latents.append(to_numpy(model.codec.encode(part)))
    return one_more_step.fit_step(np.concatenate(text), np.concatenate(latents), ridge)


def fit(folder: Path, images: Path, tell: image_folder.Tell = lambda event: None, ridge: float = 1.0) -> Path:
    """Write the step of captioned images into a model's folder; returns its file.

    ``images``: a folder or zip as ``dit train`` takes it. ``ridge``: weight of the regularization.
    Raises ModelError for a folder that is no model, InputError where there is no image with a caption.
    """
    from dit_tools.models.loading.load import load

    if not folder.is_dir():
        raise ModelError(f"{folder}: not a folder", "give the folder of a model, which the step is written into")
    model = load(str(folder))
    pixels, captions = image_folder.read_folder(images, model.defaults.size, tell)
    return one_more_step.write_step(fit_images(model, pixels, captions, ridge), folder)
