"""Features and attention maps of clean images on a grid of tokens, for alignment losses.

An encoder is ``patches`` (computed here), a vision model of transformers, or an autoencoder of
diffusers, by its folder or its name on the hub. Safetensors only; no code of the hub is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from dit_tools.core.errors import ModelError
from dit_tools.nn.attention_maps import pooled, similarity

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, where a processor says nothing
BATCH = 32

Maps = Callable[[Any], Sequence[torch.Tensor]]
"""Rows of the images -> a map (B, heads, N, N) for each pair of blocks."""


def features(name: str, pictures: np.ndarray, grid: int) -> torch.Tensor:
    """Features (N, grid * grid, D), float16, of uint8 images (N, 4, H, W).

    Features that no network has normalized (patches, autoencoder) are normalized over all
    images. Raises ModelError when the encoder cannot be loaded.
    """
    if name == "patches":
        make, raw = _patches(grid), True
    else:
        kind, model = _load(name)
        raw = kind == "autoencoder"
        make = (_autoencoder if raw else _vision_model)(model, name, grid)
    parts = [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
    with torch.no_grad():
        made = torch.cat([make(torch.from_numpy(part).float() / 255) for part in parts])
    if raw:
        made = (made - made.mean((0, 1))) / made.std((0, 1)).clamp(min=1e-4)
    return made.half()


def attention(name: str, pictures: np.ndarray, grid: int, pairs: int, known: torch.Tensor) -> Maps:
    """Maps of the encoder's last ``pairs`` blocks, over patches alone, in their order.

    An encoder without attention gives the similarity of its ``features``, which are ``known``.
    Raises ModelError for a vision model with fewer blocks.
    """
    kind, model = ("patches", None) if name == "patches" else _load(name, maps=True)
    if kind != "vision":
        return lambda rows: [similarity(known[torch.as_tensor(rows)])] * pairs
    blocks = getattr(_config(model), "num_hidden_layers", 0)
    if blocks < pairs:
        raise ModelError(
            f"encoder {name}: has {blocks} blocks with attention, {pairs} are needed", "set pairs to no more"
        )
    run = _forward(model, name)

    def make(rows: Any) -> list[torch.Tensor]:
        with torch.no_grad():
            out, side = run(torch.from_numpy(pictures[rows]).float() / 255)
            cut = [maps[:, :, -side * side :, -side * side :] for maps in out.attentions[-pairs:]]
            return [pooled(maps, grid) for maps in cut]

    return make


def _patches(grid: int) -> Any:
    def make(pixels: torch.Tensor) -> torch.Tensor:
        x = pixels[:, :3]
        rows = functional.pad(x.diff(dim=2), (0, 0, 0, 1))
        columns = functional.pad(x.diff(dim=3), (0, 1))
        maps = [x, x.square(), rows, columns, rows.abs() + columns.abs()]
        grey = x.mean(1, keepdim=True)
        stacked = torch.cat([*maps, (grey - grey.mean((2, 3), keepdim=True)).abs()], 1)
        return functional.adaptive_avg_pool2d(stacked, grid).flatten(2).mT  # (B, tokens, 16)

    return make


# networks ---------------------------------------------------------------------------------------


def _load(name: str, maps: bool = False) -> tuple[str, Any]:
    """``vision`` or ``autoencoder``, and the model. Raises ModelError."""
    import diffusers
    import transformers

    place = Path(name).expanduser()
    for inside in ("pipeline/vae", "vae"):  # a run, or a pipeline
        if not (place / "config.json").is_file() and (place / inside / "config.json").is_file():
            place = place / inside
    where = str(place) if place.is_dir() else name
    eager = {"attn_implementation": "eager"} if maps else {}  # the one that returns its maps
    reasons = []
    for kind, library, more in (("vision", transformers, eager), ("autoencoder", diffusers, {})):
        try:
            made: Any = library.AutoModel.from_pretrained(where, use_safetensors=True, **more)
        except Exception as error:  # noqa: BLE001  both libraries raise many kinds
            reasons.append((str(error).splitlines() or [type(error).__name__])[0][:120])
            continue
        if kind == "autoencoder" and not hasattr(made, "encode"):
            reasons.append(f"{type(made).__name__} is no autoencoder")
            continue
        return kind, made.eval().requires_grad_(False)
    raise ModelError(
        f"encoder {name}: cannot be loaded ({reasons[0]})",
        "name a vision model of transformers, an autoencoder of diffusers, or patches",
    )


def _config(model: Any) -> Any:
    return getattr(model.config, "vision_config", model.config)


def _forward(model: Any, name: str) -> Callable[[torch.Tensor], tuple[Any, int]]:
    """Pixels (B, 4, H, W) in [0, 1] -> the model's output, and patches a side."""
    config = _config(model)
    size, patch = getattr(config, "image_size", 224), getattr(config, "patch_size", 16)
    size, patch = (v if isinstance(v, int) else v[0] for v in (size, patch))
    mean, std = (torch.tensor(v)[None, :, None, None] for v in _statistics(name))
    part = getattr(model, "vision_model", model)
    maps = getattr(model.config, "_attn_implementation", "") == "eager"

    def run(pixels: torch.Tensor) -> tuple[Any, int]:
        x = functional.interpolate(pixels[:, :3], (size, size), mode="bicubic")
        x = (x.clamp(0, 1) - mean) / std
        return part(pixel_values=x, **({"output_attentions": True} if maps else {})), size // patch

    return run


def _statistics(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of colours that the model's processor states."""
    import json

    from transformers.utils import cached_file

    try:
        found = cached_file(name, "preprocessor_config.json")
        table = json.loads(Path(str(found)).read_text(encoding="utf-8"))
        return table["image_mean"], table["image_std"]
    except (OSError, ValueError, KeyError, TypeError):
        return MEAN, STD


def _vision_model(model: Any, name: str, grid: int) -> Any:
    run = _forward(model, name)

    def make(pixels: torch.Tensor) -> torch.Tensor:
        out, side = run(pixels)
        hidden = out.last_hidden_state
        if hidden.ndim == 3:  # tokens, behind a class token and registers
            hidden = hidden[:, -side * side :].mT.reshape(len(pixels), -1, side, side)
        return functional.interpolate(hidden, (grid, grid), mode="bilinear").flatten(2).mT

    return make


def _autoencoder(model: Any, _name: str, grid: int) -> Any:
    channels = getattr(model.config, "in_channels", 3)
    levels = len(getattr(model.config, "block_out_channels", None) or (1,) * 6)
    multiple = 2 ** (levels - 1)

    def make(pixels: torch.Tensor) -> torch.Tensor:
        sides = [-(-side // multiple) * multiple for side in pixels.shape[2:]]
        x = functional.interpolate(pixels[:, :channels], sides, mode="bilinear") * 2 - 1
        out = model.encode(x)
        z = out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latent
        return functional.interpolate(z, (grid, grid), mode="bilinear").flatten(2).mT

    return make
