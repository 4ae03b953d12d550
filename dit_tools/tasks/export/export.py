"""``dit export``: a model's folder becomes a folder with graphs that both backends can run."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dit_tools.core.errors import ModelError
from dit_tools.models.family import Family
from dit_tools.models.loading import validation
from dit_tools.tasks.export import model_folder
from dit_tools.tasks.export.preflight import ExportConfig, check_export

Tell = Callable[[dict[str, Any]], None]


def export(source: Any, wanted: ExportConfig, tell: Tell = lambda event: None) -> list[Path]:
    """Export the model ``source`` (``models.resolve.Resolved``); returns the graphs' paths.

    ``tell`` hears of every graph: ``{"type": "graph", "path", "difference"}``.
    Raises UsageError for unknown parts and opsets, UnsupportedError for what cannot be exported,
    ModelError for damaged files, InputError for the output, all before work begins.
    """
    parts, family = check_export(source, wanted)
    files = model_folder.model_files(source.path)
    model_folder.check_space(files, wanted.output)
    from dit_tools.models.loading.pipeline_folder import quiet

    with model_folder.whole_folder(wanted.output, wanted.overwrite) as folder, quiet():
        model_folder.copy_files(files, source.path, folder)
        graphs: dict[str, Any] = {}
        for name, facts in _write_all(folder, parts, family, wanted):
            graphs[name] = facts
            path = str(wanted.output / facts["file"])
            tell({"type": "graph", "path": path, "difference": facts["difference"]})
        _write_facts(folder, source, family, wanted, graphs)
    return [wanted.output / facts["file"] for facts in graphs.values()]


def _write_all(
    folder: Path, parts: tuple[str, ...], family: Family, wanted: ExportConfig
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write the graphs of each part in turn, with no more than one part in memory."""
    from dit_tools.tasks.export.write import write_graph, write_int8, write_subgraphs

    for part in parts:
        module = _load(folder, part)
        for graph in _graphs(folder, part, family, module):
            yield graph.name, write_graph(graph, folder, wanted.opset, wanted.check)
            if part == "transformer" and wanted.int8:
                yield "transformer.int8", write_int8(graph, folder, wanted.check)
            if part == "transformer" and wanted.split:
                for facts in write_subgraphs(graph, folder, wanted.opset, wanted.check):
                    yield Path(facts["file"]).stem, facts
        del module


def _graphs(folder: Path, part: str, family: Family, module: Any) -> list[Any]:
    from dit_tools.tasks.export import graphs

    if part == "transformer":
        return [graphs.transformer_graph(_with_config(family, module), module)]
    if part == "vae":
        return graphs.vae_graphs(family, module)
    return [graphs.text_graph(module, max_tokens(folder))]


def _with_config(family: Family, transformer: Any) -> Family:
    """The family with the transformer's whole config: files may lack keys that have defaults."""
    return type(family)({**transformer.config}, family.vae, family.scheduler)


def _load(folder: Path, part: str) -> Any:
    """A part in float32. Raises ModelError when it is damaged or its weights lack tensors."""
    import torch

    library, name = validation.components(folder)[part]
    kind = getattr(importlib.import_module(str(library)), str(name))
    files = validation.weight_files(folder / part)
    variant = "fp16" if all(".fp16" in path.name for path in files) else None
    try:
        module, info = kind.from_pretrained(
            folder / part,
            torch_dtype=torch.float32,
            use_safetensors=True,
            variant=variant,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{part}: cannot be loaded ({line})", validation.DAMAGED) from error
    if info["missing_keys"]:
        some = sorted(info["missing_keys"])[0]
        raise ModelError(f"{part}: its weights lack {some}", validation.DAMAGED)
    return module.eval().float()


def max_tokens(folder: Path) -> int:
    """Text length of a PixArt model: what ``dit.json`` says, or the pipeline's own default."""
    import inspect

    import diffusers

    if (folder / "dit.json").exists():
        return int(validation.read_json(folder / "dit.json")["max_tokens"])
    encode = getattr(diffusers, validation.pipeline_class(folder)).encode_prompt
    return int(inspect.signature(encode).parameters["max_sequence_length"].default)


def _write_facts(folder: Path, source: Any, family: Family, wanted: ExportConfig, graphs: dict[str, Any]) -> None:
    fixed = family.onnx().fixed_size and "transformer" in graphs
    facts = {
        "dit_export": 1,
        "model": source.name,
        "revision": source.revision,
        "family": family.name,
        "opset": wanted.opset,
        "size": [family.default_size] * 2 if fixed else None,
        "max_tokens": max_tokens(folder) if "text_encoder" in graphs else None,
        "graphs": graphs,
        "versions": {name: _version(name) for name in ("torch", "diffusers", "onnxruntime")},
    }
    (folder / model_folder.FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if (folder / "dit.json").exists():
        _renew(folder)


def _version(name: str) -> str:
    """Of the module, because ONNX Runtime comes as several packages."""
    return importlib.import_module(name).__version__


def _renew(folder: Path) -> None:
    """State the new graphs in a built-in model's ``dit.json``; they serve any size."""
    from dit_tools.tasks.export.builtin import write_facts

    facts = validation.read_json(folder / "dit.json")
    made = {k: v for k, v in facts.items() if k not in ("onnx_size", "revision", "files")}
    write_facts(folder, made)
