"""Who looks at images while they are made: the image-text model of ``dit eval`` on decoded latents."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from dit_tools.core.arrays import Array

CLASS_NAMES = (
    "smiling face",
    "crying face",
    "angry face",
    "heart",
    "hand",
    "eye",
    "foot",
    "man",
    "woman",
    "child",
    "police officer",
    "dog",
    "cat",
    "horse",
    "cow",
    "pig",
    "bird",
    "chicken",
    "fish",
    "whale",
    "snake",
    "turtle",
    "butterfly",
    "spider",
    "flower",
    "tree",
    "leaf",
    "mushroom",
    "apple",
    "banana",
    "lemon",
    "grapes",
    "tomato",
    "carrot",
    "bread",
    "cheese",
    "pizza",
    "hamburger",
    "cake",
    "ice cream",
    "coffee",
    "beer",
    "house",
    "castle",
    "mountain",
    "beach",
    "car",
    "bus",
    "train",
    "ship",
    "airplane",
    "rocket",
    "bicycle",
    "clock",
    "sun",
    "moon",
    "star",
    "cloud",
    "fire",
    "snowflake",
    "umbrella",
    "ball",
    "guitar",
    "phone",
    "book",
    "key",
    "hammer",
    "lock",
    "flag",
    "arrow",
)
"""What else an image might show: the other classes of the classifier."""


class LatentScorer:
    """Scores clean latents (B, C, h, w) of ``model`` against one prompt a row."""

    def __init__(self, model: Any, prompts: Sequence[str]):
        from dit_tools.models.clip import clip64

        self._model, self._judge = model, clip64()
        self._texts = self._judge.texts(list(prompts))
        self._words = self._judge.texts(CLASS_NAMES)

    def scores(self, x0: Array) -> list[float]:
        """Cosines of each image with its prompt."""
        features = self._judge.pictures(self._model.codec.decode(x0))
        return (features * self._texts).sum(1).tolist()

    def gradient(self, x0: Array, joint: float, marginal: float) -> Array:
        """Of ``joint f_y - log sum_c exp(marginal f_c)`` by x0, (B, C, h, w).

        ``f`` are cosines; ``y`` is the prompt, ``c`` runs over it and ``CLASS_NAMES``.
        """
        import torch

        with torch.enable_grad():
            leaf = x0.detach().requires_grad_()
            seen = _seen(self._model, leaf, self._judge.size)
            features = _encoder()(seen.cpu()).to(x0.device)
            texts, words = (torch.as_tensor(t, device=x0.device) for t in (self._texts, self._words))
            own = (features * texts).sum(1, keepdim=True)  # (B, 1)
            every = torch.cat([own, features @ words.mT], 1)  # (B, 1 + words)
            value = joint * own[:, 0] - (marginal * every).logsumexp(1)
            return torch.autograd.grad(value.sum(), leaf)[0]


def _seen(model: Any, x0: Any, size: int) -> Any:
    """The image that latents decode to, (B, 3, size, size) in [0, 1], with gradients."""
    from torch.nn.functional import interpolate

    pixels = model.codec.pixels(x0)[:, :3].clamp(0, 1)
    if pixels.shape[2:] == (size, size):
        return pixels
    return interpolate(pixels, (size, size), mode="bilinear", antialias=True)


@cache
def _encoder() -> Any:
    from dit_tools.models.clip import FOLDER
    from dit_tools.nn.clip import picture_encoder

    return picture_encoder(FOLDER / "picture.onnx")
