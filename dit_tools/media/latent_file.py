"""The file of ``dit invert``: a safetensors file with latents and all that leads back.

Tensors: ``noise`` and the arrays of the inversion's state. Metadata: one JSON record under ``dit``.
A file may come from anywhere, so nothing in it is believed before it is checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.core.arrays import Array
from dit_tools.core.errors import DitError, InputError
from dit_tools.core.reading import parse_json

LATENT_SUFFIX = ".latent"
MAX_FILE_BYTES = 4 << 30  # bytes
MAX_RECORD_BYTES = 1 << 20  # characters
MAX_STEPS = 10_000
_TEXTS = ("prompt", "negative_prompt", "guidance", "inversion", "model", "model_revision")
_REMEDY = "make it again with dit invert"


@dataclass(frozen=True)
class Latent:
    """The content of a latent file: numpy arrays by name, and the record."""

    arrays: Mapping[str, Array]
    record: Mapping[str, Any]

    @property
    def noise(self) -> Array:
        """Latents (1, C, h, w) at the first time."""
        return self.arrays["noise"]

    @property
    def state(self) -> dict[str, Array]:
        """What the way back needs besides."""
        return {name: array for name, array in self.arrays.items() if name != "noise"}

    @property
    def times(self) -> tuple[float, ...]:
        """Falling times that end at 0."""
        return tuple(self.record["times"])


def pack_latent(latent: Latent) -> bytes:
    """The bytes of the file."""
    import numpy as np
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in latent.arrays.items()}
    text = json.dumps({"version": 1, **latent.record}, ensure_ascii=True, sort_keys=True)
    return save(arrays, {"dit": text})  # one key: several have no fixed order


def unpack_latent(path: str | Path) -> Latent:
    """Read and check a latent file. Raises InputError naming it: unreadable, foreign or damaged."""
    try:
        latent = _unpacked(Path(path))
        _check(latent)
    except DitError as error:
        raise InputError(f"{path}: {error.message}", error.hint or _REMEDY) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # the parser of a hostile file may raise anything
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: no latent file: {reason}", _REMEDY) from None
    return latent


def _unpacked(path: Path) -> Latent:
    from safetensors import safe_open

    if path.is_dir():
        raise InputError("is a folder", "give a .latent file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"over {MAX_FILE_BYTES >> 30} GiB")
    with safe_open(path, "np") as file:
        text = (file.metadata() or {}).get("dit", "")
        if not text or len(text) > MAX_RECORD_BYTES:
            raise InputError("a safetensors file, but not of dit invert")
        record = parse_json(text, "its record")
        if not isinstance(record, dict) or record.get("command") != "invert":
            raise InputError("a safetensors file, but not of dit invert")
        wanted = {"noise", *_carried(record)}
        if set(file.keys()) != wanted:
            raise InputError(f"holds other arrays than {', '.join(sorted(wanted))}")
        arrays = {name: file.get_tensor(name) for name in wanted}
    return Latent(arrays, record)


def _carried(record: Mapping[str, Any]) -> tuple[str, ...]:
    for name in _TEXTS:
        if not isinstance(record.get(name), str):
            raise InputError(f"its record has no {name.replace('_', ' ')}")
    return spec.parse("inversion", record["inversion"]).carries


def _check(latent: Latent) -> None:
    record = latent.record
    if record.get("version") != 1:
        raise InputError("made by another version of dit")
    sizes = [record.get(side) for side in ("height", "width")]
    if not all(type(size) is int and 1 <= size <= 16384 for size in sizes):
        raise InputError("its record has no size")
    _check_times(record.get("times"))
    _check_arrays(latent, len(record["times"]) - 1)


def _check_times(times: Any) -> None:
    if not isinstance(times, list) or not 2 <= len(times) <= MAX_STEPS + 1:
        raise InputError("its record has no times")
    if not all(type(t) in (int, float) and math.isfinite(t) for t in times):
        raise InputError("its times are not numbers")
    falling = all(t > s for t, s in zip(times, times[1:], strict=False))
    if not falling or times[-1] != 0 or times[0] > 1:
        raise InputError("its times do not fall from at most 1 to 0")


def _check_arrays(latent: Latent, steps: int) -> None:
    import numpy as np

    shape = latent.noise.shape
    if len(shape) != 4:
        raise InputError("its latents are not (1, C, h, w)")
    rows = {"noise": 1, "pair": 1, "next": 1, "rest": 1, "trajectory": steps, "codes": steps - 1, "nulls": steps}
    for name, array in latent.arrays.items():
        fits = array.ndim == 2 if name == "nulls" else array.shape[1:] == shape[1:]
        if array.dtype not in (np.float32, np.float64) or not fits:
            raise InputError(f"its array {name} has an odd type or shape")
        if not np.isfinite(array).all():
            raise InputError(f"its array {name} holds values that are not numbers")
        if len(array) != rows.get(name, len(array)):
            raise InputError(f"its array {name} does not fit its times")
