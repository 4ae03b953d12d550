"""Features of clean pictures on a grid of tokens, for alignment losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dit_tools.core.errors import ModelError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, where a processor says nothing
BATCH = 32


def features(name: str, pictures: np.ndarray, grid: int) -> torch.Tensor:
    """Features (N, grid * grid, D), float16, of uint8 pictures (N, 4, H, W).

    ``patches``: 16 numbers a patch, normalized over the pictures. Else a vision model of
    transformers, its patch tokens interpolated to the grid. Raises ModelError when it cannot load.
    """
    make = _patches(grid) if name == "patches" else _vision_model(name, grid)
    parts = [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
    with torch.no_grad():
        made = torch.cat([make(torch.from_numpy(p[:, :3]).float() / 255) for p in parts])
    if name == "patches":
        made = (made - made.mean((0, 1))) / made.std((0, 1)).clamp(min=1e-4)
    return made.half()


def _patches(grid: int) -> Any:
    def make(x: torch.Tensor) -> torch.Tensor:
        rows = functional.pad(x.diff(dim=2), (0, 0, 0, 1))
        columns = functional.pad(x.diff(dim=3), (0, 1))
        maps = [x, x.square(), rows, columns, rows.abs() + columns.abs()]
        grey = x.mean(1, keepdim=True)
        stacked = torch.cat([*maps, (grey - grey.mean((2, 3), keepdim=True)).abs()], 1)
        pooled = functional.adaptive_avg_pool2d(stacked, grid)
        return pooled.flatten(2).mT  # (B, tokens, 16)

    return make


def _vision_model(name: str, grid: int) -> Any:
    from transformers import AutoModel

    try:
        model: Any = AutoModel.from_pretrained(name).eval()
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise ModelError(
            f"encoder {name}: cannot be loaded ({reason})", "name a vision model, or patches"
        ) from None
    config = getattr(model.config, "vision_config", model.config)
    size, patch = getattr(config, "image_size", 224), getattr(config, "patch_size", 16)
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (MEAN, STD))
    model = getattr(model, "vision_model", model)

    def make(x: torch.Tensor) -> torch.Tensor:
        x = functional.interpolate(x, (size, size), mode="bicubic", align_corners=False)
        hidden = model(pixel_values=(x.clamp(0, 1) - mean) / std).last_hidden_state
        side = size // patch
        tokens = hidden[:, -side * side :].mT.reshape(len(x), -1, side, side)
        return functional.interpolate(tokens, (grid, grid), mode="bilinear").flatten(2).mT

    return make
