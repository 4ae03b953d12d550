"""The extra step of ``--noise oms`` for a model, from captioned pictures.

    python -m dit_tools.tasks.train.one_more_step MODEL PICTURES

``MODEL`` is a folder that is written to; ``PICTURES`` a folder or zip as ``dit train`` takes it.
The model's own text encoder and autoencoder are used; its transformer is not touched.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dit_tools.core.arrays import to_numpy
from dit_tools.core.size import Size
from dit_tools.models import one_more_step
from dit_tools.models.family import ConditionRequest
from dit_tools.tasks.train import image_folder

BATCH = 16  # pictures that go through the autoencoder together


def fitted(model: Any, pixels: np.ndarray, captions: Sequence[str], ridge: float) -> Any:
    """The step of pictures, uint8 (N, 4, size, size), and their captions."""
    size, text, latents = pixels.shape[-1], [], []
    channels = 4 if model.alpha else 3
    for start in range(0, len(captions), BATCH):
        words = tuple(captions[start : start + BATCH])
        asked = ConditionRequest(words, ("",) * len(words), Size.square(size), ("cond",))
        text.append(one_more_step.pooled(model.encode(asked)["cond"]))
        part = pixels[start : start + BATCH, :channels].astype(np.float32) / 255
        latents.append(to_numpy(model.codec.encode(part)))
    return one_more_step.fit(np.concatenate(text), np.concatenate(latents), ridge)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--ridge", type=float, default=1.0)
    a = parser.parse_args()
    from dit_tools.models.loading.load import load

    model = load(str(a.model))
    pixels, captions = image_folder.read(a.pictures, model.defaults.size, lambda e: print(json.dumps(e)))
    print(one_more_step.write(fitted(model, pixels, captions, a.ridge), a.model))


if __name__ == "__main__":
    main()
