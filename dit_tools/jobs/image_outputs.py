"""What outputs are when they are images: their format, and what names may say of a job."""

from __future__ import annotations

from collections.abc import Sequence

from dit_tools.core.errors import UsageError
from dit_tools.jobs.expand import Job
from dit_tools.jobs.models import KnownModel
from dit_tools.jobs.names import Value, destination, slug
from dit_tools.jobs.settings import Settings
from dit_tools.jobs.sweep import TEXTS, Axis
from dit_tools.media.image import format_of, suffix


def output_format(output: str | None, asked: str | None, usual: str = "png") -> str:
    """The format to write: ``--format``, else that of the suffix of ``-o``, else ``usual``.

    Raises UsageError when the two contradict each other, or for a suffix that is no image format.
    """
    where = destination(output, "image", suffix(asked or usual))
    if where.kind == "stdout":
        return asked or usual
    kind = format_of(where.template)
    if asked and asked != kind:
        raise UsageError(f"--format {asked}: -o {where.template} is a {kind} file", "give one of them")
    return kind


def check_transparency(settings: Settings, kind: str) -> None:
    """Raise UsageError for transparency in a format that holds none."""
    if settings.transparent and kind == "jpeg":
        raise UsageError("--transparent: jpeg holds no transparency", "choose png, webp or avif")
    if settings.quality is not None and kind in ("png", "tiff"):
        raise UsageError(f"--quality: {kind} takes none", "it is for jpeg, webp and avif")


def default_template(axes: Sequence[Axis]) -> str:
    """``{prompt}-{seed}``, and every swept option behind it."""
    swept = "".join(f"-{a.key}{{{a.key}}}" for a in axes if a.option != "seed")
    return "{prompt}-{seed}" + swept


def name_fields(job: Job, axes: Sequence[Axis], known: KnownModel) -> dict[str, Value]:
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
