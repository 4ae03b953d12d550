"""Latents of the training images, encoded once and kept next to the checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dit_tools.jobs.atomic import atomic_path
from dit_tools.tasks.train import autoencoder

LATENTS_FILE = "latents.safetensors"


def cached_latents(run: Path, vae: Any, data: np.ndarray, other: Path | None = None, keep: bool = True) -> torch.Tensor:
    """Latents (N, C, h, w) of uint8 images, from ``run`` where they are those of this data.

    The file carries a hash of images and autoencoder; another one is computed again. ``other``:
    the folder of another run, which may have them too. ``keep``: whether to write the file.
    """
    wanted = _fingerprint(vae, data)
    for place in (run, other):
        if place is not None and (found := _read(place / LATENTS_FILE, wanted)) is not None:
            return found
    made = autoencoder.encode(vae, data).contiguous()
    if keep:
        run.mkdir(parents=True, exist_ok=True)
        with atomic_path(run / LATENTS_FILE) as part:
            save_file({"latents": made}, part, {"of": wanted})
    return made


def _read(path: Path, wanted: str) -> torch.Tensor | None:
    if path.exists():
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("of") == wanted:
                    return file.get_tensor("latents")
        except (OSError, SafetensorError):
            pass  # damaged: made again
    return None


def _fingerprint(vae: Any, data: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(data).tobytes())
    for name, tensor in sorted(vae.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
