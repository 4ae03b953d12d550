"""Where the pictures of a run go, decided for all of them before a model is loaded."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools.core.errors import UsageError
from dit_tools.jobs.atomic import atomic_write, write_error
from dit_tools.jobs.expand import Job
from dit_tools.jobs.manifest import Manifest, key_of
from dit_tools.jobs.models import Known
from dit_tools.jobs.names import Destination, Names, Value, destination, slug, unique
from dit_tools.jobs.settings import Settings
from dit_tools.jobs.sweep import TEXTS, Axis
from dit_tools.media.image import format_of, suffix

STOPS_A_RUN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What keeps every further picture from being written too."""


@dataclass(frozen=True)
class Target:
    """Where a job's picture goes: ``path``, or None for stdout.

    ``state``: ``make``; ``done`` when the manifest has it, whole; ``exists`` with --skip-existing.
    """

    job: Job
    path: Path | None
    format: str
    key: str
    steps: int = 20  # as far as is known before the model is loaded, for the progress bar
    state: str = "make"

    @property
    def shown(self) -> str:
        """The path as it is printed."""
        return "-" if self.path is None else str(self.path)


@dataclass
class Outputs:
    """The value of ``-o`` and what to do about files that are there already.

    Raises UsageError and InputError from ``targets``, before anything is written.
    """

    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    manifest: Manifest | None = None
    _names: dict[Destination, Names] = field(default_factory=dict)

    def targets(self, jobs: Sequence[Job], axes: Sequence[Axis], known: Mapping[str, Known]) -> list[Target]:
        """A target for every job, in order. ``known``: model reference -> what is known of it."""
        if self.overwrite and self.skip_existing:
            message = "--overwrite and --skip-existing exclude each other"
            raise UsageError(message, "give one of them")
        folder = manifest_folder(self.output)
        self.manifest = Manifest(folder) if folder is not None else None
        template = default_template(axes)
        return [self._target(job, template, axes, known[job.settings.model]) for job in jobs]

    def _target(self, job: Job, template: str, axes: Sequence[Axis], known: Known) -> Target:
        asked = job.settings.format
        where = destination(self.output, template, suffix(asked or "png"))
        kind = _checked_format(where, asked)
        check_transparency(job.settings, kind)
        key = key_of(
            {
                **job.settings.pixel_options(),
                "model": known.name,
                "revision": known.revision,
                "prompt": job.prompt,
                "seed": job.seed,
                "format": kind,
            }
        )
        steps = job.settings.steps or (known.defaults.steps if known.defaults else 20)
        if where.kind == "stdout":
            return Target(job, None, kind, key, steps)
        if self.manifest is not None and not self.overwrite:
            done = self.manifest.done(key)
            if done is not None:
                return Target(job, done, kind, key, steps, "done")
        path = self._claim(where, fields(job, axes, known))
        if self.skip_existing and os.path.exists(path):
            return Target(job, path, kind, key, steps, "exists")
        check_folder(path, where.kind == "template")
        return Target(job, path, kind, key, steps)

    def _claim(self, where: Destination, values: Mapping[str, Value]) -> Path:
        keep = self.overwrite or self.skip_existing
        names = self._names.setdefault(where, Names(where, "keep" if keep else "number"))
        return names.claim(values)

    def write(self, target: Target, content: bytes) -> Path:
        """Write a picture, whole or not at all, and note it in the manifest; gives its path.

        A file that appeared since the run began is kept: the picture gets another name.
        """
        path = target.path
        assert path is not None, "pictures for stdout are written by the command"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
        if not (self.overwrite or target.path is None):
            path = unique(path)
        atomic_write(path, content)
        if self.manifest is not None:
            self.manifest.add(target.key, path)
        return path


def default_template(axes: Sequence[Axis]) -> str:
    """``{prompt}-{seed}``, and every swept option behind it."""
    swept = "".join(f"-{a.key}{{{a.key}}}" for a in axes if a.option != "seed")
    return "{prompt}-{seed}" + swept


def fields(job: Job, axes: Sequence[Axis], known: Known) -> dict[str, Value]:
    """The fields of a name template; what only the loaded model knows is ``default``."""
    settings, defaults = job.settings, known.defaults
    size = defaults.size if defaults else "default"
    cfg = settings.cfg_scale
    if cfg is None:
        cfg = defaults.cfg if defaults else "default"
    made: dict[str, Value] = {
        "prompt": job.prompt,
        "seed": job.seed,
        "index": job.index + 1,
        "line": job.line,
        "model": slug(known.name),
        "steps": settings.steps or (defaults.steps if defaults else "default"),
        "cfg": cfg,
        "width": settings.width or size,
        "height": settings.height or size,
    }
    texts = {axis.key: axis.option in TEXTS for axis in axes}
    labels = {key: slug(text) if texts[key] else text for key, text in job.labels.items()}
    return made | labels


def manifest_folder(output: str | None) -> Path | None:
    """The folder that keeps the manifest; None without a folder of the user's own."""
    if output in (None, "", "-"):
        return None
    if output.endswith(("/", os.sep)) or os.path.isdir(output):
        return Path(output)
    parts = Path(output).parts
    fixed = [i for i, part in enumerate(parts) if "{" in part]
    return Path(*parts[: fixed[0]]) if fixed and fixed[0] > 0 else None


def check_folder(path: Path, make: bool) -> None:
    """Raise InputError when ``path`` cannot be written; with ``make``, missing folders are fine."""
    try:
        number = _obstacle(path, make)
    except OSError as error:  # such as a name that is too long
        raise write_error(path, error) from error
    if number:
        raise write_error(path, OSError(number, os.strerror(number)))


def _obstacle(path: Path, make: bool) -> int:
    """The errno that writing would meet, as far as looking shows; 0 for none."""
    if path.is_dir():
        return errno.EISDIR
    folder = path.parent
    while make and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.exists():
        return errno.ENOENT
    if not folder.is_dir():
        return errno.ENOTDIR
    return 0 if os.access(folder, os.W_OK | os.X_OK) else errno.EACCES


def _checked_format(where: Destination, asked: str | None) -> str:
    name = where.template or "-"
    kind = format_of(name if where.kind != "stdout" else "-", None)
    if asked and where.kind != "stdout" and asked != kind:
        raise UsageError(f"--format {asked}: -o {name} is a {kind} file", "give one of them")
    return asked or kind


def check_transparency(settings: Settings, kind: str) -> None:
    """Raise UsageError for transparency in a format that holds none."""
    if settings.transparent and kind == "jpeg":
        raise UsageError("--transparent: jpeg holds no transparency", "choose png, webp or avif")
    if settings.quality is not None and kind in ("png", "tiff"):
        raise UsageError(f"--quality: {kind} takes none", "it is for jpeg, webp and avif")


def stops_run(error: BaseException) -> bool:
    """Whether an error of writing would come back for every further picture."""
    cause: Any = error.__cause__
    return isinstance(cause, OSError) and cause.errno in STOPS_A_RUN
