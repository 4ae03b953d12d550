"""The network behind the wavelet codec: it removes what quantisation did to an image."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

SHUFFLE = 4
"""Pixels along one side of the cell that a position of the network stands for."""


class WaveletDecoder(nn.Module):
    """Plain 3 x 3 convolutions on cells of 4 x 4 pixels; predicts a correction of the image.

    The correction is in units of an eighth of the quantisation step, so that one network serves every rate and
    changes nothing where the step is zero.

    Args:
        width: Channels of the hidden layers.
        blocks: Residual blocks of two convolutions each.
    """

    def __init__(self, width: int = 128, blocks: int = 3):
        super().__init__()
        cell = 3 * SHUFFLE**2
        self.enter = nn.Conv2d(cell + 2, width, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.leave = nn.Conv2d(width, cell, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        for conv in self.second:
            nn.init.zeros_(conv.weight)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """The corrected image.

        Args:
            image: RGB (B, 3, H, W) from the inverse transform, grey levels minus 128; sides are
                multiples of 4.
            steps: Local quantisation step of the two finest levels (B, 2, H / 4, W / 4).
        """
        scale = steps.mean(dim=(1, 2, 3), keepdim=True) / 8
        cells = functional.pixel_unshuffle(image, SHUFFLE) / 64
        h = functional.relu(self.enter(torch.cat([cells, torch.log2(steps) / 4 - 1], 1)))
        for first, second in zip(self.first, self.second, strict=True):
            h = h + second(functional.relu(first(h)))
        return image + functional.pixel_shuffle(self.leave(functional.relu(h)), SHUFFLE) * scale
