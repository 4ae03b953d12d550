"""The ``dit`` record of an image: everything that was resolved, and its way back to options.

Written to ``docs/schema/record.schema.json``. Only base names go in: an image that is shown to
others must not tell where on a disk it was made.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dit_tools import __version__
from dit_tools.core import spec
from dit_tools.core.errors import DitError, InputError
from dit_tools.jobs.options import read_values, without_scale
from dit_tools.jobs.result import GeneratedImage
from dit_tools.media.foreign import read_generation
from dit_tools.media.metadata import VERSION, read_record
from dit_tools.models.loading.lora import parse_lora
from dit_tools.models.model import Model

LIBRARIES = {"onnx": ("numpy", "onnxruntime"), "torch": ("torch", "diffusers", "transformers")}
_GIVEN = (
    "embedded_guidance",
    "max_tokens",
    "transparent",
    "background",
    "quality",
    "vae_tiling",
    "vae_slicing",
    "offload",
)
_BACK = (
    "negative_prompt",
    "model",
    "seed",
    "width",
    "height",
    "steps",
    "cfg_scale",
    "schedule",
    "solver",
    "guidance",
    "noise",
    "cache",
    "attention",
    "tokens",
    "highres",
    "combine",
    "second_model",
    "second_prompt",
    "dtype",
    "backend",
    "lora",
    "base",
    *_GIVEN,
)


def make_record(drawn: GeneratedImage, model: Model, extra: Mapping[str, Any] | None = None) -> dict:
    """The record of one image; options at None or false are left out."""
    job, settings, plan = drawn.job, drawn.job.settings, drawn.plan
    given = {name: getattr(settings, name) for name in _GIVEN}
    if given["offload"] == "none":
        del given["offload"]
    made = {
        "version": VERSION,
        "command": "generate",
        "dit_version": __version__,
        "prompt": job.prompt,
        "negative_prompt": settings.negative_prompt,
        "seed": job.seed,
        "width": drawn.width,
        "height": drawn.height,
        "steps": plan.steps,
        "cfg_scale": getattr(plan.guidance, "scale", None),
        **given,
        **plan.specs(),
        "cache": spec.format(_named(plan.cache)),
        "model": base_name(settings.model),
        "model_revision": model.revision,
        "second_model": base_name(settings.second_model) if settings.second_model else None,
        "second_model_revision": model.second.revision if model.second else None,
        "second_prompt": settings.second_prompt,
        "base": base_name(settings.base) if settings.base else None,
        "lora": _loras(settings.lora, model),
        "backend": model.backend,
        "device": model.device.partition(":")[0],
        "dtype": model.dtype,
        "versions": versions(model.backend),
        "seconds": round(drawn.seconds, 3),
        **(extra or {}),
    }
    return {k: v for k, v in made.items() if v is not None and v is not False}


def _named(cache: Any) -> Any:
    """The cache with the base name of its calibration in place of a path."""
    reference = getattr(cache, "calibration", "")
    return replace(cache, calibration=base_name(reference)) if reference else cache


def base_name(reference: str) -> str:
    """A path without its folders; a hub id or a built-in name as it is."""
    path = Path(reference).expanduser()
    if os.path.exists(path):
        return path.resolve().name
    if path.is_absolute() or reference.startswith((".", "~")):
        return path.name
    return reference


def _loras(texts: Sequence[str], model: Model) -> list[dict[str, Any]] | None:
    """Name, scale and hash of every LoRA; the loaded model knows, else the options say.

    ``unmatched`` of ``keys`` tensors fit nothing in the model, where there are such.
    """
    applied = model.notes.get("loras")
    if not applied:
        parsed = [parse_lora(text) for text in texts]
        applied = [{"name": lora.path.name, "scale": lora.scale} for lora in parsed]
    kept = ("name", "scale", "sha256")
    counts = ("keys", "unmatched")
    return [
        {key: lora[key] for key in (*kept, *(counts if lora.get("unmatched") else ())) if key in lora}
        for lora in applied
    ] or None


def versions(backend: str) -> dict[str, str]:
    """Versions of Python and of the libraries that a backend's pixels depend on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for library in LIBRARIES.get(backend, ()):
        for package in (library, f"{library}-gpu"):
            try:
                found[library] = version(package)
                break
            except PackageNotFoundError:
                continue
    return found


def from_image(path: str) -> tuple[str | None, dict[str, Any], list[str]]:
    """What an image's metadata asks for: prompt, read options, and what was left aside, in words.

    Takes the ``dit`` record, else what other programs wrote (``dit_tools.media.foreign``), of which
    prompt, negative prompt, steps, scale, seed and size are understood. Raises InputError without
    either.
    """
    record = read_record(path)
    if record is not None:
        prompt = record.get("prompt")
        if prompt is not None and not isinstance(prompt, str):
            raise InputError(f"{path}: its 'dit' record is damaged: the prompt is no text", "give the options by hand")
        return prompt, options_of(record, path), []
    found = read_generation(path)
    if found is None:
        raise InputError(f"{path}: holds no parameters of a generation", "give the options by hand")
    try:
        return found.prompt, read_values(found.values, path), found.aside
    except DitError as error:
        raise InputError(error.message, error.hint) from None


def options_of(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options that a record states, read and checked. Raises InputError naming the image."""
    values = {name: record[name] for name in _BACK if record.get(name) is not None}
    if "lora" in values:
        values["lora"] = _lora_texts(values["lora"], where)
    guidance = values.get("guidance")
    if isinstance(guidance, str) and "cfg_scale" in values:
        values["guidance"] = without_scale(guidance)
    try:
        return read_values(values, where)
    except DitError as error:
        raise InputError(error.message, error.hint) from None


def _lora_texts(entries: Any, where: str) -> list[str]:
    try:
        return [f"{entry['name']}:{float(entry['scale'])!r}" for entry in entries]
    except (TypeError, KeyError, ValueError):
        raise InputError(f"{where}: its 'dit' record is damaged", "give the options by hand") from None
