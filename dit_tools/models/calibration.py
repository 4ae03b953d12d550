"""What ``dit calibrate`` finds out about a model: small safetensors files, found again by name.

A file holds arrays in float32 and, as metadata ``dit``, the JSON of its key: the cache and the
parameters that it was made with, model and revision, steps, solver, schedule and guidance. Its name
is made of the key, so that ``calibration=auto`` finds it without a search.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import InputError, UnsupportedError
from dit_tools.core.reading import parse_json

CALIBRATION = "auto: found by model and settings; a name or file of dit calibrate"
"""Help of the parameter ``calibration``."""
CALIBRATION_SUFFIX = ".safetensors"
MAX_FILE_BYTES = 1 << 30  # bytes of a file that is read; the largest are one block of a large model
MAX_KEY_LENGTH = 10_000  # characters of its metadata
SAME_TIME = 1e-4  # times that differ by less are the same


@dataclass
class Calibration:
    """A file's ``key`` and ``arrays`` by name; ``module`` while one is being trained."""

    key: Mapping[str, Any]
    arrays: Mapping[str, Any] = field(default_factory=dict)
    module: Any = None

    @property
    def name(self) -> str:
        """The file name that the key makes, e.g. ``ertacache-emoji-20-1a2b3c4d5e``."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:10]
        model = re.sub(r"[^\w.-]+", "-", str(self.key["model"]))[-60:].strip("-.")
        return f"{self.key['cache'].partition(':')[0]}-{model}-{self.key['steps']}-{digest}"

    def encode(self) -> bytes:
        """The content of the file."""
        import numpy as np
        from safetensors.numpy import save

        arrays = {k: np.ascontiguousarray(v, np.float32) for k, v in self.arrays.items()}
        return save(arrays, {"dit": json.dumps(dict(self.key), sort_keys=True)})


def calibration_folder() -> Path:
    """Where calibrations are kept when no file is named."""
    import platformdirs

    return platformdirs.user_data_path("dit") / "calibrations"


def key_of(cache: Any, model: Any, plan: Any) -> dict[str, Any]:
    """What a calibration of this cache depends on."""
    chosen = {name: getattr(cache, name) for name in cache.calibrated_by}
    return {
        "cache": spec.format(type(cache)(**chosen)),
        "model": model.name,
        "revision": model.revision,
        "steps": plan.steps,
        "solver": spec.format(plan.solver),
        "schedule": spec.format(plan.schedule),
        "guidance": spec.format(plan.guidance),
    }


def find_calibration(cache: Any, model: Any, plan: Any, times: Sequence[float]) -> Calibration | None:
    """The calibration of a run, None where a word such as ``none`` stands in place of one.

    Raises InputError when there is none, or one for another model or for other settings;
    UnsupportedError when the run does not go through the times that it was made for.
    """
    if cache.calibration in cache.words:
        return None
    key = key_of(cache, model, plan)
    path = _located(cache, key)
    found = read_calibration(path)
    _check(found.key, key, path.name, cache.calibrated_by)
    made_for = found.arrays["times"].tolist() if "times" in found.arrays else list(times)
    if len(made_for) != len(times) or any(abs(a - b) > SAME_TIME for a, b in zip(made_for, times, strict=True)):
        raise UnsupportedError(
            f"--cache {cache.info.name}: {path.name} was made for whole runs at other times",
            "use it without a start midway and at the size that it was made for",
        )
    return found


def _located(cache: Any, key: Mapping[str, Any]) -> Path:
    kept = calibration_folder()
    if cache.calibration == "auto":
        path = kept / (Calibration(key).name + CALIBRATION_SUFFIX)
        if not path.is_file():
            raise InputError(
                f"--cache {cache.info.name}: not calibrated for {key['model']}, {key['steps']} "
                f"steps, {key['solver']}, {key['guidance']}",
                f"run {calibrate_command(key)}",
            )
        return path
    path = Path(cache.calibration).expanduser()
    for candidate in (path, kept / path.name, kept / (path.name + CALIBRATION_SUFFIX)):
        if candidate.is_file():
            return candidate
    raise InputError(f"--calibration {cache.calibration}: no such file", "run dit calibrate")


def calibrate_command(key: Mapping[str, Any]) -> str:
    """The command that makes a calibration of this key."""
    words = {
        "-m": key["model"],
        "--cache": key["cache"],
        "--steps": key["steps"],
        "--solver": key["solver"],
        "--schedule": key["schedule"],
        "--guidance": key["guidance"],
    }
    return "dit calibrate " + " ".join(f"{option} {word}" for option, word in words.items())


def _check(found: Mapping[str, Any], wanted: Mapping[str, Any], name: str, by: Any) -> None:
    for part in ("model", "revision", "cache", "steps", "solver", "schedule", "guidance"):
        mine, theirs = found.get(part), wanted[part]
        if part == "cache" and not by:  # parameters do not matter
            mine, theirs = str(mine).partition(":")[0], theirs.partition(":")[0]
        if part == "model" and found.get("revision") == wanted["revision"]:
            continue  # the same weights by another name
        if mine != theirs:
            shown = "model" if part == "revision" else part
            raise InputError(
                f"--calibration {name}: made for {shown} {str(mine)[:60]}, not {theirs}",
                f"run {calibrate_command(wanted)}",
            )


def read_calibration(path: Path) -> Calibration:
    """Read a file. Raises InputError for one that is too large, damaged or of another kind."""
    import numpy as np
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: too large for a calibration", "choose another file")
        with safe_open(str(path), framework="numpy") as file:
            text = (file.metadata() or {}).get("dit", "")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a calibration", "make it again") from error
    try:
        key = parse_json(text[:MAX_KEY_LENGTH], "")
    except InputError:
        key = None
    sound = all(a.dtype == np.float32 and bool(np.isfinite(a).all()) for a in arrays.values())
    if not isinstance(key, dict) or not isinstance(key.get("cache"), str) or not sound:
        raise InputError(f"{path}: no calibration of dit", "make one with dit calibrate")
    return Calibration(key, arrays)


def table(calibration: Calibration, name: str, shape: tuple[int | None, ...]) -> Any:
    """An array of a calibration; None in ``shape`` is any length.

    Raises InputError when it is missing or of another shape.
    """
    found = calibration.arrays.get(name)
    fits = found is not None and len(found.shape) == len(shape)
    if not fits or any(b not in (None, a) for a, b in zip(found.shape, shape, strict=True)):  # type: ignore[union-attr]
        wanted = " x ".join("?" if size is None else str(size) for size in shape)
        raise InputError(f"the calibration holds no {name} of {wanted}", "make it again")
    return found
