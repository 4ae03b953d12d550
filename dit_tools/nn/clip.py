"""The image encoder of the image-text model, as trained and as read back from its graph, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Depthwise 5x5 mixing and a pointwise MLP around it, as in ConvNeXt (Liu et al. 2022)."""

    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.up, self.down = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) to the same."""
        return x + self.down(functional.gelu(self.up(self.norm(self.mix(x)))))


class PictureEncoder(nn.Module):
    """Images (B, 3, S, S) in [0, 1] to unit features (B, F)."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], features: int):
        super().__init__()
        first, second = widths
        self.body = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, first, 3, padding=1),
            *[Block(first) for _ in range(blocks[0])],
            nn.Conv2d(first, second, 2, stride=2),
            *[Block(second) for _ in range(blocks[1])],
            nn.GroupNorm(1, second),
        )
        self.head = nn.Linear(second, features)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Mean-pooled, projected, of length 1."""
        pooled = self.body(2 * pictures - 1).mean(dim=(2, 3))
        return functional.normalize(self.head(pooled), dim=-1)


def picture_encoder(graph: Path) -> PictureEncoder:
    """The encoder of ``picture.onnx``: its weights are stored in half precision by their names."""
    import onnx
    from onnx import numpy_helper

    state = {
        entry.name.removeprefix("inner.").removesuffix(".half"): torch.from_numpy(
            numpy_helper.to_array(entry).astype("float32")
        )
        for entry in onnx.load(graph).graph.initializer
        if entry.name.endswith((".half", ".weight", ".bias"))
    }
    places = sorted({int(name.split(".")[1]) for name in state if ".mix." in name})
    between = next(a + 1 for a, b in zip(places, places[1:], strict=False) if b > a + 1)
    counts = sum(place < between for place in places), sum(place > between for place in places)
    widths = [len(state[f"body.{place}.bias"]) for place in (1, between)]
    made = PictureEncoder(widths, counts, len(state["head.bias"]))
    made.load_state_dict(state)
    return made.eval().requires_grad_(False)
