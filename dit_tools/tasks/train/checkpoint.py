"""Checkpoints of a training run: written to a temporary file and renamed, read with weights only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dit_tools.core.errors import ModelError
from dit_tools.jobs.atomic import write_error


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, nested dicts) so that a kill never leaves half a file.

    Raises InputError when it cannot be written.
    """
    beside = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as stream:
            torch.save(state, stream)
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into RuntimeError
        if beside.exists():
            beside.unlink()
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise write_error(path, cause) from error


def load_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any] | None:
    """The state last saved at ``path``, or None when there is none yet.

    Raises ModelError for a damaged file.
    """
    if not path.exists():
        return None
    try:
        return torch.load(path, weights_only=True, map_location=device)
    except Exception as error:  # noqa: BLE001  pickle, zip and torch each have their own
        raise ModelError(
            f"{path}: damaged checkpoint ({type(error).__name__})", "delete it, or add --overwrite"
        ) from error


def save_folder(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a folder next to ``path``, which then takes its name."""
    part, old = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.old")
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        write(part)
        if path.exists():
            path.rename(old)
        part.rename(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
