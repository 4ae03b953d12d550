"""What an export cannot do is said here, before any work begins and any weight is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.core.errors import MemoryLimitError, UnsupportedError, UsageError
from dit_tools.core.registry import nearest
from dit_tools.models.families import family_class, pipelines
from dit_tools.models.family import Family
from dit_tools.models.loading import validation
from dit_tools.tasks.export import model_folder

PARTS = ("transformer", "text_encoder", "vae")
OPSETS = (17, 20)
"""17 has LayerNormalization as one node; the TorchScript exporter ends at 20."""
VAES = ("AutoencoderKL", "AutoencoderDC", "AutoencoderKLQwenImage")
T5 = "T5EncoderModel"
COUNTS = ("num_layers", "num_single_layers", "n_layers")
"""Keys of a transformer's config that count its blocks."""


@dataclass(frozen=True)
class ExportConfig:
    """What to export. Without ``parts`` the transformer, the autoencoder where it can be traced,
    and the text encoder of a built-in model.
    """

    output: Path
    parts: tuple[str, ...] = ()
    opset: int = OPSETS[0]
    check: bool = True
    overwrite: bool = False
    int8: bool = False
    split: bool = False


def check_export(source: Any, wanted: ExportConfig) -> tuple[tuple[str, ...], Family]:
    """The parts to export and the model's family. Raises as ``export`` does; loads no weights."""
    if not source.path.is_dir():
        raise UnsupportedError(f"--model {source.name}: a single file cannot be exported", "give a diffusers folder")
    validation.check_folder(source.path)
    if not OPSETS[0] <= wanted.opset <= OPSETS[1]:
        raise UsageError(f"--opset {wanted.opset}: not known", f"give {OPSETS[0]} to {OPSETS[1]}")
    family = _family(source.path)
    parts = _parts(source.path, wanted.parts)
    if wanted.int8 and "transformer" not in parts:
        raise UsageError("--int8: it is the transformer's, which --parts leaves out", "add it")
    if wanted.split and "transformer" not in parts:
        raise UsageError("--split: it is the transformer, which --parts leaves out", "add it")
    if wanted.split and layers(family) < 2:
        raise UnsupportedError("--split: a transformer of one block is one piece", "leave it out")
    model_folder.check_output(wanted.output, source.path, wanted.overwrite)
    if "transformer" in parts:
        reason = family.onnx().refusal(family.transformer)
        if reason:
            raise UnsupportedError(f"dit export: cannot trace models with {reason}", "use torch")
    _check_memory(source.path, parts, wanted.check)
    return parts, family


def _family(folder: Path) -> Family:
    kind = validation.pipeline_class(folder)
    made = family_class(kind)
    if made is None:
        raise UnsupportedError(f"dit export: {kind} cannot be exported", f"only {', '.join(pipelines())} can")
    transformer, vae = (validation.read_json(folder / part / "config.json") for part in ("transformer", "vae"))
    if "quantization_config" in transformer or "quantization_config" in vae:
        raise UnsupportedError("dit export: quantized weights cannot be exported", "take the plain")
    return made(transformer, vae, validation.read_json(folder / "scheduler/scheduler_config.json"))


def layers(family: Family) -> int:
    """Blocks of the transformer, by its config."""
    return sum(int(v or 0) for k, v in family.transformer.items() if k in COUNTS)


def _parts(folder: Path, asked: tuple[str, ...]) -> tuple[str, ...]:
    for part in asked:
        if part not in PARTS:
            raise UsageError(f"--parts {part}: no such part", nearest(part, list(PARTS)))
    possible = {"transformer": "", "vae": _vae_refusal(folder), "text_encoder": _t5_refusal(folder)}
    for part in asked:
        if possible[part]:
            left = [name for name, reason in possible.items() if not reason]
            raise UnsupportedError(f"--parts {part}: {possible[part]}", f"give --parts {','.join(left)}")
    if asked:
        return tuple(part for part in PARTS if part in asked)
    usual = PARTS if (folder / "dit.json").exists() else ("transformer", "vae")
    return tuple(part for part in usual if not possible[part])


def _vae_refusal(folder: Path) -> str:
    kind = validation.components(folder).get("vae", (None, None))[1]
    return "" if kind in VAES else f"{kind} cannot be exported"


def _t5_refusal(folder: Path) -> str:
    """Only PixArt's single T5 with a fast tokenizer can do without torch."""
    kind = validation.components(folder).get("text_encoder", (None, None))[1]
    if kind is None:
        return "the model has none"
    family = family_class(validation.pipeline_class(folder))
    if family is None or not family.onnx_text or kind != T5:
        return f"{kind} stays in torch"
    there = (folder / "tokenizer/tokenizer.json").exists()
    return "" if there else "the tokenizer has no tokenizer.json"


def _check_memory(folder: Path, parts: tuple[str, ...], check: bool) -> None:
    """Weights are held in float32 by torch and, for the check, by ONNX Runtime once more."""
    most = max(_count(folder / part) for part in parts) * 4 * (2 if check else 1)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    if total and most > total:
        hint = "--no-check halves it" if check else "use a machine with more memory"
        raise MemoryLimitError(f"dit export: needs {most / 1e9:.0f} GB, this machine has {total / 1e9:.0f} GB", hint)


def _count(folder: Path) -> int:
    """Numbers in the weight files of a part, variants left out."""
    total = 0
    for path in model_folder.model_weights(folder):
        for entry in validation.header(path).values():
            size = 1
            for side in entry["shape"]:
                size *= side
            total += size
    return total
