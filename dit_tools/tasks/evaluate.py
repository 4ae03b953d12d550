"""Images, what they are compared with, and the numbers that come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import DitError, InputError, UsageError
from dit_tools.core.reading import parse_json
from dit_tools.media import image
from dit_tools.media.foreign import read_generation
from dit_tools.media.metadata import read_record
from dit_tools.methods.metrics import Metric


@dataclass(frozen=True)
class Value:
    """One number: of metric ``metric`` over ``count`` images; ``note`` says how far it can be trusted."""

    metric: str
    value: float
    unit: str
    higher_is_better: bool
    count: int
    note: str | None = None


@dataclass
class Outcome:
    """What an evaluation gives: numbers, and the files that could not take part."""

    values: list[Value] = field(default_factory=list)
    failed: list[DitError] = field(default_factory=list)


@dataclass(frozen=True)
class EvalRequest:
    """What to evaluate.

    ``references``: files to compare with; paired with the images by name (without suffix), or in
    order when there is one image and one reference. ``autoencoder_reference``: an autoencoder,
    ``layers -> pixels``, whose output takes the references' place. ``prompts``: texts by file
    name; images not in it are asked for their own record.
    """

    pictures: Sequence[Path]
    metrics: Sequence[Metric]
    references: Sequence[Path] = ()
    through: Callable[[Array], Array] | None = None
    prompts: dict[str, str] = field(default_factory=dict)


def evaluate(question: EvalRequest, progress: Callable[[], Any] = lambda: None) -> Outcome:
    """Measure. A file that cannot be read or has no partner is listed in ``failed``, not raised.

    Raises UsageError for a metric whose other side is not given.
    """
    _check(question)
    outcome, meters = Outcome(), [metric.begin() for metric in question.metrics]
    partners = _partners(question) if _wants(question, "pairs") and not question.through else {}
    counts = [0] * len(meters)
    for path in question.pictures:
        try:
            _one(question, path, partners, meters, counts)
        except DitError as error:
            outcome.failed.append(error)
        progress()
    for path in question.references if _wants(question, "sets") else ():
        try:
            other = pixels(path)
            for metric, meter in zip(question.metrics, meters, strict=True):
                if metric.compares == "sets":
                    meter.update(other[:0], other)
        except DitError as error:
            outcome.failed.append(error)
        progress()
    for metric, meter, count in zip(question.metrics, meters, counts, strict=True):
        if not count:  # every image failed, and is named
            continue
        try:
            value = Value(
                metric.info.name, meter.value(), metric.unit, metric.higher_is_better, count, meter.note or None
            )
            outcome.values.append(value)
        except ValueError as error:
            outcome.failed.append(InputError(str(error)))
    return outcome


def _check(question: EvalRequest) -> None:
    missing = [m.info.name for m in question.metrics if m.compares in ("pairs", "sets")]
    if missing and not question.references and not question.through:
        raise UsageError(f"--metric {missing[0]}: compares images with others", "give --reference or --through")
    sets = [m.info.name for m in question.metrics if m.compares == "sets"]
    if sets and not question.references:
        raise UsageError(f"--metric {sets[0]}: compares two sets of images", "give --reference")


def _wants(question: EvalRequest, kind: str) -> bool:
    return any(metric.compares == kind for metric in question.metrics)


def _partners(question: EvalRequest) -> dict[Path, Path]:
    """Image -> reference of the same name."""
    if len(question.pictures) == len(question.references) == 1:
        return {question.pictures[0]: question.references[0]}
    by_name: dict[str, Path] = {}
    for path in question.references:
        if path.stem in by_name:
            raise UsageError(
                f"--reference: {by_name[path.stem]} and {path} have the same name", "compare one folder at a time"
            )
        by_name[path.stem] = path
    return {path: by_name[path.stem] for path in question.pictures if path.stem in by_name}


def _one(question: EvalRequest, path: Path, partners: dict[Path, Path], meters: list[Any], counts: list[int]) -> None:
    """Give one image to every meter; everything is read before the first one is told."""
    whole = layers(path)
    own = whole[:, :3]
    others: dict[str, Any] = {metric.compares: None for metric in question.metrics}
    if "pairs" in others:
        others["pairs"] = _other(question, path, whole, partners)
    if "texts" in others:
        others["texts"] = [question.prompts.get(path.name) or prompt_of(path)]
    if "sets" in others:
        others["sets"] = own[:0]
    for i, (metric, meter) in enumerate(zip(question.metrics, meters, strict=True)):
        try:
            meter.update(own, others[metric.compares])
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
        counts[i] += 1


def _other(question: EvalRequest, path: Path, whole: Array, partners: dict[Path, Path]) -> Array:
    if question.through is None:
        return _partner(path, whole[:, :3], partners)
    try:
        return question.through(whole)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from None


def _partner(path: Path, own: Array, partners: dict[Path, Path]) -> Array:
    if path not in partners:
        raise InputError(f"{path}: no reference is called {path.stem}", "check --reference")
    other = pixels(partners[path])
    if other.shape != own.shape:
        sizes = [f"{p.shape[3]}x{p.shape[2]}" for p in (own, other)]
        raise InputError(f"{path}: is {sizes[0]}, its reference {sizes[1]}", "scale one of them")
    return other


def pixels(path: Path) -> Array:
    """An image file as (1, 3, H, W) in [0, 1]: grey as three channels, alpha over white."""
    return layers(path)[:, :3]


def layers(path: Path) -> Array:
    """An image file as (1, 4, H, W) in [0, 1]: colour over white, and opacity."""
    import numpy as np

    found = image.read(path).pixels
    opacity = found[..., 3:] if found.shape[2] == 4 else np.ones_like(found[..., :1])
    colour = image.composite_over(found) if found.shape[2] == 4 else found
    colour = np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else colour
    return np.concatenate([colour, opacity], axis=2).transpose(2, 0, 1)[None]


def prompt_of(path: Path) -> str:
    """The prompt that an image carries: dit's record, else what another program wrote.

    Raises InputError when it carries none.
    """
    record = read_record(path)
    if record and record.get("prompt"):
        return str(record["prompt"])
    found = read_generation(path)
    text = (found.prompt or "").strip() if found else ""
    if not text:
        raise InputError(f"{path}: carries no prompt", "give --prompts with a line for it")
    return text


def read_prompts(path: Path) -> dict[str, str]:
    """File name -> prompt, from lines of JSON with ``file`` (or ``path``) and ``prompt``.

    Raises InputError naming the line.
    """
    made: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}", "give a JSONL file") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, str(path))
            name = row.get("file") or row["path"]
            made[Path(str(name)).name] = str(row["prompt"])
        except (InputError, KeyError, AttributeError):
            raise InputError(
                f"{path}, line {number}: no JSON object with 'file' and 'prompt'", "write one object a line"
            ) from None
    return made


def autoencoder_reference(model: Any) -> Callable[[Array], Array]:
    """What a model's autoencoder makes of colour over white and opacity (1, 4, H, W)."""
    import numpy as np

    from dit_tools.core.arrays import is_torch

    def make(whole: Array) -> Array:
        _check_size(model, *whole.shape[2:])
        given = whole if model.alpha else whole[:, :3]
        made = model.codec.decode(model.codec.encode(model.to_array(given.astype(np.float32))))
        made = made.float().cpu().numpy() if is_torch(made) else made
        return made[:, :3]

    return make


def _check_size(model: Any, height: int, width: int) -> None:
    """Raise InputError for an image that the autoencoder cannot take: graphs have one size."""
    multiple, side = model.family.vae_scale * model.family.patch, model.defaults.size
    one_size = model.backend == "onnx" and (height, width) != (side, side)
    if one_size or height % multiple or width % multiple:
        wanted = f"{side}x{side}" if one_size else f"a multiple of {multiple}"
        raise InputError(f"is {width}x{height}, {model.name} takes {wanted}", "scale it first")
