"""Convolutional networks for photographs: super-resolution and blind restoration.

Both predict a residual, so that an untrained network already returns its base: the enlarged or
the given image. Plain 3 x 3 convolutions of at least 64 channels run at the full speed of a CPU's
matrix units, several times faster than attention over pixels, and their result in a tile is that
of the whole image as soon as the tile overlaps its neighbours by the receptive field.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(x)))`` without normalization (Lim et al. 2017, EDSR)."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, H, W) to the same shape."""
        return x + self.second(torch.relu(self.first(x)))


class Upscaler(nn.Module):
    """One trunk at the small size with a head for each scale (as MDSR, Lim et al. 2017).

    A head is a single convolution and a pixel shuffle, so that nothing is computed at the large
    size. The result is what is to be added to the cubic enlargement of the input.
    """

    def __init__(self, width: int = 64, blocks: int = 8, scales: tuple[int, ...] = (2, 3, 4)):
        super().__init__()
        self.start = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.heads = nn.ModuleDict({str(s): nn.Conv2d(width, 3 * s * s, 3, padding=1) for s in scales})
        for head in self.heads.values():
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor, scale: int) -> torch.Tensor:
        """(B, 3, H, W), 0 to 1, to the residual (B, 3, scale H, scale W)."""
        features = self.blocks(self.start(image - 0.5))
        return pixel_shuffle(self.heads[str(scale)](features), scale)


class Restorer(nn.Module):
    """A U-net from half the size downwards that returns the error of a photograph, to be added.

    Blind: it sees the image and is told nothing about noise or compression. Height and width must
    be multiples of ``multiple``.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 128, 192), blocks: tuple[int, ...] = (2, 2, 3)):
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.start = nn.Conv2d(12, widths[0], 3, padding=1)
        levels = list(zip(widths, blocks, strict=True))
        self.down = nn.ModuleList(_blocks(*level) for level in levels[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(widths, widths[1:], strict=False))
        self.bottom = _blocks(*levels[-1])
        self.grow = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.up = nn.ModuleList(_blocks(*level) for level in levels[:-1])
        self.end = nn.Conv2d(widths[0], 12, 3, padding=1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W), 0 to 1, to the residual of the same shape."""
        x = self.start(pixel_unshuffle(image - 0.5, 2))
        kept: list[torch.Tensor] = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            x = blocks(x)
            kept.append(x)
            x = shrink(x)
        x = self.bottom(x)
        for level in reversed(range(len(kept))):
            x = kept[level] + pixel_shuffle(self.grow[level](x), 2)
            x = self.up[level](x)
        return pixel_shuffle(self.end(x), 2)


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
