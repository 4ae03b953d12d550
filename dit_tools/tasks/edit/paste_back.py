"""The edited pixels of the model's size back in the image's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dit_tools.media.crop import CropBox, remove_white
from dit_tools.media.image import Picture

if TYPE_CHECKING:
    import numpy as np


VISIBLE = 0.1
"""Change of a colour, of 1, from which on a pixel is the edit's own and keeps no old detail."""


def compose(
    picture: Picture, edited: np.ndarray, frame: CropBox, weights: np.ndarray | None, plain: np.ndarray | None = None
) -> np.ndarray:
    """The image with the edit in it, (H, W, 3 or 4).

    Args:
        picture: what was edited; a grey one becomes colour. Opacity that is the same everywhere
            stays; where it varies it is edited, too.
        edited: the model's pixels (3 or 4, h, w), colours over white and opacity.
        frame: where they belong.
        weights: share of the edit (H, W), 0 = the image's own pixels, bit for bit; None: 1.
        plain: the model's pixels of the image itself, (3 or 4, h, w). Where the edit hardly
            differs from them the image's detail is added, which the model's size and its
            autoencoder lose.
    """
    import numpy as np

    whole = picture.pixels
    if whole.shape[2] == 1:
        whole = np.repeat(whole, 3, axis=2)
    part, rows, columns = frame.back(np.ascontiguousarray(edited.transpose(1, 2, 0)))
    before = whole[rows, columns]
    after = _layers(part, before, picture.even)
    if plain is not None:
        known, _, _ = frame.back(np.ascontiguousarray(plain.transpose(1, 2, 0)))
        after = _detailed(after, before, _layers(known, before, picture.even), frame)
    made = whole.copy()
    if weights is None:
        made[rows, columns] = after
        return made
    share = weights[rows, columns][:, :, None]
    mixed = before + share * (after - before)
    made[rows, columns] = np.where(share > 0, mixed, before)
    return made


def _detailed(after: np.ndarray, before: np.ndarray, known: np.ndarray, frame: CropBox) -> np.ndarray:
    """The edit with what the model does not see of the image, where it changed little."""
    import cv2
    import numpy as np

    change = np.abs(after - known).max(axis=2)
    cell = max(frame.height / frame.model[0], 1.0)  # pixels of the image per model pixel
    near = cv2.GaussianBlur(change, (0, 0), 2 * cell)
    kept = 1 - np.clip(np.maximum(near, change) / VISIBLE, 0, 1)[:, :, None]
    return (after + kept * (before - known)).clip(0, 1)


def _layers(part: np.ndarray, before: np.ndarray, even: bool) -> np.ndarray:
    """The edit in the image's own layers: straight alpha where it has any, kept where ``even``."""
    import numpy as np

    if before.shape[2] == 3:
        return part[:, :, :3]
    opacity = part[:, :, 3:] if part.shape[2] == 4 and not even else before[:, :, 3:]
    return np.concatenate([remove_white(part[:, :, :3], opacity), opacity], axis=2)
