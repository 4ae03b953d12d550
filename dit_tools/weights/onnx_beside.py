"""``--target onnx:beside=true``: a model's folder with its int8 graph beside its own graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dit_tools.core import spec
from dit_tools.exporting import _folder, int8
from dit_tools.models import quantized
from dit_tools.weights import onnx_graphs, quantizing, resume, run

INT8 = "transformer.int8.onnx"
"""What ``--dtype int8`` opens instead of ``transformer.onnx``."""


def make(source: Any, wanted: run.Wanted, target: Any, trial: Any, tell: Any) -> dict[str, Any]:
    """Write ``wanted.output``, the whole model and its int8 graph; returns its facts."""
    layers = onnx_graphs.preflight(source, wanted, target, dry=False)
    files = _files(source.path)
    _folder.check_space(files, wanted.output, resume.held(wanted.output))
    asked = quantizing.request(source, wanted, trial, spec.format(target))
    with resume.workplace(wanted.output, wanted.overwrite, asked) as work:
        folder = work.folder
        full, layers, _ = quantizing.learn(source, wanted, trial, layers, tell, work)
        _folder.copy_files(files, source.path, folder)
        graph = folder / onnx_graphs.GRAPH
        count = work.once(INT8, lambda place: int8.quantize(graph, place / INT8))
        tell({"type": "graph", "path": INT8, "products": count})
        facts = onnx_graphs.facts(source, wanted, target, folder.glob(f"{INT8}*"), layers)
        rows = onnx_graphs.rows(layers, target, tell)
        facts |= quantizing.judge(source, full, trial, "int8")(folder)
        onnx_graphs.describe(folder / INT8, facts)
        (folder / run.FACTS).write_text(
            json.dumps(facts | {"layers": rows}, indent=1) + "\n", encoding="utf-8"
        )
        if (folder / "dit.json").exists():
            run.renew(folder, graphs=True)
    return facts | {"layers": rows}


def _files(source: Path) -> list[Path]:
    """Everything that the model's graphs and PyTorch read."""
    graphs = [path for path in source.iterdir() if ".onnx" in path.suffixes and path.is_file()]
    graphs = [path for path in graphs if not path.name.startswith(INT8)]
    weights = _folder.model_weights(source / quantized.PART)
    index = sorted((source / quantized.PART).glob("*.safetensors.index.json"))
    facts = [path for path in (source / _folder.FACTS,) if path.is_file()]
    return [*run.rest(source), *weights, *index, *facts, *graphs]
