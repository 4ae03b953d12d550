"""The folders of the models that come with dit: exported, in pieces, with an int8 graph that ``dit quantize`` made.

A folder keeps what describes its model through every new export: card (``README.md``), notice, recipes
and the facts of ``dit.json``. A new model begins as a folder with a card, a recipe and a ``dit.json``
that holds its facts alone. ``tools/release.py`` is the program for maintainers.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import ModelError
from dit_tools.models.loading import validation
from dit_tools.models.loading.resolve import BUILTIN, Resolved
from dit_tools.tasks.quantize import packed_folder
from dit_tools.tasks.quantize.onnx_sidecar import INT8
from dit_tools.tasks.quantize.quantize import EvalConfig

TARGET = "onnx:beside=true"
WRITTEN = ("name", "revision", "files")
"""What ``dit.json`` says of the weights as they are, next to the facts of the model."""


def export(name: str, pipeline: Path, models: Path = BUILTIN) -> dict[str, float]:
    """Replace the weights and graphs of the model ``name``; returns each graph's difference to torch.

    Raises ModelError for a folder without facts, card or notice.
    """
    from dit_tools.tasks.export import builtin

    folder = models / name
    facts = {k: v for k, v in validation.read_json(folder / "dit.json").items() if k not in WRITTEN}
    documents = {path.name: path.read_text(encoding="utf-8") for path in documents_of(folder)}
    if "NOTICE.txt" not in documents:  # a small variant has the data of its parent
        documents["NOTICE.txt"] = _text(models / name.partition("-")[0] / "NOTICE.txt")
    documents["README.md"] = _text(folder / "README.md")
    return builtin.export(pipeline, folder, facts, documents)


def documents_of(folder: Path) -> list[Path]:
    """What people wrote about a model: card, notice and recipes."""
    return sorted([*folder.glob("README.md"), *folder.glob("NOTICE.txt"), *folder.glob("recipe*.toml")])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}", "write it before the export") from None


def refresh_facts(folder: Path) -> None:
    """Let ``dit.json`` list the files as they are, after a card or a recipe was edited."""
    from dit_tools.tasks.export.builtin import write_facts

    write_facts(folder, validation.read_json(folder / "dit.json"))


def add_int8(folder: Path, trial: EvalConfig) -> dict[str, Any]:
    """Put the int8 graph into a built-in model's folder; returns the facts of ``quantize.json``.

    The graph takes its name in one step, and ``dit.json`` after it.
    """
    from dit_tools.tasks.export.builtin import write_facts

    facts, target = validation.read_json(folder / "dit.json"), spec.parse("formats", TARGET)
    source = Resolved("builtin", folder, folder.name, str(facts.get("revision", "")))
    with tempfile.TemporaryDirectory() as scratch:
        wanted = packed_folder.QuantizeConfig(Path(scratch) / folder.name, target.scheme(None))
        found = target.make(source, wanted, trial, lambda event: None)
        part = folder / f".{INT8}.part"
        shutil.copyfile(wanted.output / INT8, part)
        os.replace(part, folder / INT8)
    write_facts(folder, facts)
    return found
