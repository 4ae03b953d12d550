"""``--target onnx:beside=true``: a model's folder with its int8 graph next to its own graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.models.loading import quantized
from dit_tools.tasks.export import int8, model_folder
from dit_tools.tasks.quantize import onnx_graphs, packed_folder, quantize, resume

INT8 = "transformer.int8.onnx"
"""What ``--dtype int8`` opens instead of ``transformer.onnx``."""


def make(source: Any, wanted: packed_folder.QuantizeConfig, target: Any, trial: Any, tell: Any) -> dict[str, Any]:
    """Write ``wanted.output``, the whole model and its int8 graph; returns its facts."""
    layers = onnx_graphs.preflight(source, wanted, target, dry=False)
    files = _files(source.path)
    model_folder.check_space(files, wanted.output, resume.held_bytes(wanted.output))
    asked = quantize.request(source, wanted, trial, spec.format(target))
    with resume.workplace(wanted.output, wanted.overwrite, asked) as work:
        folder = work.folder
        full, layers, _ = quantize.learn_layers(source, wanted, trial, layers, tell, work)
        model_folder.copy_files(files, source.path, folder)
        graph = folder / onnx_graphs.GRAPH
        count = work.once(INT8, lambda place: int8.quantize(graph, place / INT8))
        tell({"type": "graph", "path": INT8, "products": count})
        facts = onnx_graphs.facts(source, wanted, target, folder.glob(f"{INT8}*"), layers)
        rows = onnx_graphs.rows(layers, target, tell)
        facts |= quantize.measure_quality(source, full, trial, "int8")(folder)
        onnx_graphs.describe(folder / INT8, facts)
        (folder / packed_folder.FACTS_FILE).write_text(
            json.dumps(facts | {"layers": rows}, indent=1) + "\n", encoding="utf-8"
        )
        if (folder / "dit.json").exists():
            packed_folder.update_hashes(folder, graphs=True)
    return facts | {"layers": rows}


def _files(source: Path) -> list[Path]:
    """Everything that the model's graphs and PyTorch read."""
    graphs = [path for path in source.iterdir() if ".onnx" in path.suffixes and path.is_file()]
    graphs = [path for path in graphs if not path.name.startswith(INT8)]
    weights = model_folder.model_weights(source / quantized.PART)
    index = sorted((source / quantized.PART).glob("*.safetensors.index.json"))
    facts = [path for path in (source / model_folder.FACTS_FILE,) if path.is_file()]
    return [*packed_folder.other_files(source), *weights, *index, *facts, *graphs]
