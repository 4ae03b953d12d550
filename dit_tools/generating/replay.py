"""Repeating the run that a picture's record describes, and comparing the two pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.core.errors import InputError, ModelError
from dit_tools.generating.draw import draw, layers
from dit_tools.generating.jobs import Job
from dit_tools.generating.loading import Known, Load, Loader, look_up
from dit_tools.generating.options import read_values
from dit_tools.generating.record import make_record, options_of
from dit_tools.generating.request import merge
from dit_tools.media import image
from dit_tools.media.metadata import read_record


@dataclass(frozen=True)
class Original:
    """A picture to repeat: its file, its record, its format, and the job that makes it again."""

    path: str
    record: Mapping[str, Any]
    format: str
    job: Job


def read_original(path: str, changes: Mapping[str, Any], index: int = 0) -> Original:
    """The job of a picture's record; ``changes`` are options that replace recorded ones.

    Raises InputError when the picture has no record or one that cannot be repeated.
    """
    record = read_record(path)
    if record is None:
        hint = "take what it says with dit generate --from-image"
        raise InputError(f"{path}: holds no 'dit' record", hint)
    if record.get("command", "generate") != "generate":
        raise InputError(f"{path}: made by dit {record['command']}", "only generate is repeated")
    if not isinstance(record.get("prompt"), str) or not isinstance(record.get("seed"), int):
        raise InputError(f"{path}: its 'dit' record has no prompt and seed", "give them by hand")
    # A graphics card is used where there is one; arithmetic on the CPU is repeated on the CPU.
    place = {"device": "cpu"} if record.get("device") == "cpu" else {}
    settings = merge([options_of(record, path), place, read_values(changes)])
    job = Job(index, record["prompt"], record["seed"], settings)
    return Original(path, record, image.read(path).format, job)


def check_revision(original: Original, known: Known) -> None:
    """Raise ModelError when the model on this machine is not the one that made the picture."""
    recorded = original.record.get("model_revision")
    if recorded and known.revision and recorded != known.revision:
        raise ModelError(
            f"{original.path}: made by revision {recorded} of {known.name}, here is "
            f"{known.revision}",
            "get that revision and give it with -m, or repeat all the same with --force",
        )


class Replayer:
    """Repeats pictures, each model loaded once. ``find`` and ``load`` as in ``assemble``."""

    def __init__(
        self,
        originals: Sequence[Original],
        force: bool = False,
        find: Callable[[Any], Known] = look_up,
        load: Load | None = None,
    ):
        self._force, self._find = force, find
        self._loader = Loader([original.job for original in originals], load)

    def check(self, original: Original) -> None:
        """Raise ModelError, before anything is loaded, for a missing or another model."""
        known = self._find(original.job.settings)
        if not self._force:
            check_revision(original, known)

    def make(self, original: Original, format: str | None = None) -> bytes:
        """The picture again, as the bytes of a file. Raises what ``draw.draw`` raises."""
        settings = original.job.settings
        model = self._loader.model(settings)
        (drawn,) = draw(model, [original.job])
        kind = format or original.format
        record = make_record(drawn, model)
        pixels = layers(drawn, model.alpha)
        quality = settings.quality if kind in image.QUALITY else None
        return image.encode(pixels, kind, quality=quality, record=record)


def psnr(path: str | Path, content: bytes) -> float | None:
    """Peak signal-to-noise ratio in dB of two pictures; infinite when equal.

    None when they differ in size or channels. Raises InputError when ``path`` cannot be read.
    """
    import numpy as np

    one, other = image.read(path).pixels, image.read(content).pixels
    if one.shape != other.shape:
        return None
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def drift(original: Original, now: Mapping[str, Any]) -> str:
    """What differs between two records and may change pixels, in words; empty: nothing."""
    parts = []
    for key in ("dit_version", "model_revision", "backend", "device", "dtype"):
        if original.record.get(key) != now.get(key):
            parts.append(f"{key} {original.record.get(key)} -> {now.get(key)}")
    before, after = original.record.get("versions") or {}, now.get("versions") or {}
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            parts.append(f"{name} {before.get(name)} -> {after.get(name)}")
    return ", ".join(parts)
