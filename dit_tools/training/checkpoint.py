"""Checkpoints of a training run: written beside and renamed, read with weights only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, nested dicts) so that a kill never leaves half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    os.replace(beside, path)


def load(path: Path) -> dict[str, Any] | None:
    """The state last saved at ``path``, or None when there is none yet."""
    return torch.load(path, weights_only=True) if path.exists() else None
