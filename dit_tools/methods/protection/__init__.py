"""Protecting: an image is changed a little, so that edits of it fail (``dit edit --protect``).

Contract: ``protect(shield) -> change`` (1, 3, H, W), no element beyond ``levels`` / 255, in tensors
of torch. A ``ProtectionTask`` has the image as the model sees it, an ``encode`` that carries gradients, a
denoiser of the prompt, fresh noise, and the mask that an editor may use. With ``levels`` 0 the
change is zero. Such protection holds for models that share the autoencoder, and much of it is lost
by scaling, blurring or strong compression.

Helper: ``gradient_ascent`` below (projected gradient ascent).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Path
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo


@dataclass
class ProtectionTask:
    """An image to protect: ``pixels`` (1, 3 or 4, H, W) as the codec takes them, float32.

    ``encode`` gives latents (1, C, h, w) with gradients, ``fresh`` noise like them. ``mask``
    (H, W), numpy of 0 and 1, is what an editor would repaint; None: all of it.
    """

    pixels: Array
    encode: Callable[[Array], Array]
    denoise: Callable[[Array, float], Prediction]
    path: Path
    fresh: Callable[[], Array]
    mask: Any = None


class Protection(ABC):
    """A rule for changing an image by at most ``levels`` / 255."""

    info: ClassVar[MethodInfo]

    @abstractmethod
    def protect(self, shield: ProtectionTask) -> Array:
        """What to add to the colours, (1, 3, H, W)."""


def gradient_ascent(
    shield: ProtectionTask, levels: int, step: float, iterations: int, gradient: Callable[[Array], Array]
) -> Array:
    """The change that projected gradient ascent finds, within ``levels`` / 255 and the gamut.

    ``gradient(pixels)`` gives what to climb, of the shape of ``pixels``; its signs are followed in
    steps of ``step`` / 255 (Madry et al. 2017, arXiv:1706.06083).
    """
    import torch

    colours, most = shield.pixels[:, :3], levels / 255
    change = torch.zeros_like(colours)
    for _ in range(iterations if levels else 0):
        pixels = torch.cat([colours + change, shield.pixels[:, 3:]], 1)
        climbed = change + step / 255 * gradient(pixels)[:, :3].sign()
        change = (colours + climbed.clamp(-most, most)).clamp(0, 1) - colours
    return change
