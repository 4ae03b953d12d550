"""Small images that look like photographs to a network, and small networks for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


def scene(height: int = 72, width: int = 96, seed: int = 0) -> np.ndarray:
    """A colourful image (H, W, 3), float32 in [0, 1]: a gradient, discs, bars and fine texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    made = np.stack([x / max(width, 2), y / max(height, 2), np.full_like(x, 0.4)], axis=2)
    for _ in range(6):
        cy, cx, r = rng.random() * height, rng.random() * width, 3 + rng.random() * max(height, width) / 5
        made[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = rng.random(3)
    made[(x + 2 * y) % 17 < 3] *= 0.5
    return (made + 0.03 * rng.standard_normal(made.shape)).clip(0, 1).astype(np.float32)


def drawing(seed: int = 0) -> np.ndarray:
    """Smooth shapes with sharp, antialiased edges, (192, 240, 3) uint8: what enlarging can restore."""
    rng = np.random.default_rng(seed)
    large = Image.new("RGB", (4 * 240, 4 * 192), tuple(rng.integers(256, size=3)))
    draw = ImageDraw.Draw(large)
    for _ in range(14):
        x, y, r = rng.integers(960), rng.integers(768), int(rng.integers(40, 220))
        colour = tuple(rng.integers(256, size=3))
        if rng.random() < 0.5:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        else:
            draw.line((x, y, *rng.integers(960, size=2)), fill=colour, width=r // 5)
    return np.asarray(large.resize((240, 192), Image.Resampling.BOX))


def samples(height: int = 72, width: int = 96, channels: int = 3, bits: int = 8, seed: int = 0) -> np.ndarray:
    """A scene as uint8 or uint16 samples with 1, 3 or 4 channels."""
    made = scene(height, width, seed)
    if channels == 1:
        made = made.mean(axis=2, keepdims=True)
    if channels == 4:
        alpha = np.zeros((height, width, 1), np.float32)
        alpha[height // 4 :, width // 4 :] = 1
        made = np.concatenate([made, alpha], axis=2)
    top = (1 << bits) - 1
    return np.rint(made * top).astype(np.uint8 if bits == 8 else np.uint16)


def network_folder(folder: Path, task: str) -> Path:
    """An untrained network whose result is not zero, exported as ``dit train`` does."""
    import torch
    from safetensors.torch import save_file

    from dit_tools.nn.photo_networks import Restorer, Upscaler
    from dit_tools.tasks.export import photo

    torch.manual_seed(0)
    small = Upscaler(8, 2, (2, 3, 4)) if task == "superres" else Restorer((8, 12, 16), (1, 1, 1))
    for parameter in small.parameters():
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.02)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "trained.safetensors"
    save_file({k: v.half().contiguous() for k, v in small.state_dict().items()}, weights)
    facts = {"task": task, "scales": (2, 3, 4), "overlap": 8 if task == "superres" else 56,
             "multiple": 1 if task == "superres" else 8}  # fmt: skip
    photo.export(weights, folder, facts, [scene(64, 64, seed) for seed in range(2)])
    return folder


def schemas() -> tuple[Any, Any]:
    """Validators of events and of records."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    root = Path(__file__).parents[2] / "docs/schema"
    loaded = [json.loads((root / f"{name}.schema.json").read_text()) for name in ("events", "record")]
    registry = Registry().with_resources([(s["$id"], Resource.from_contents(s)) for s in loaded])
    events, records = (Draft202012Validator(s, registry=registry) for s in loaded)
    return events, records
