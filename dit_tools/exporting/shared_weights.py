"""Graphs without weights of their own: initializers become byte ranges of a safetensors file.

A safetensors file is a header and raw little-endian tensors, which is what ONNX calls external data,
so a graph can point straight into it. Half-precision tensors are followed by a Cast to float32, which
ONNX Runtime folds when it opens the graph. One copy of the weights then serves both backends.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TYPES = {"F32": 1, "F16": 10}  # onnx.TensorProto element types
FLOAT32 = 1


def tensors(path: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """Name -> (dtype, shape, absolute offset, length) of every tensor of a safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    start = 8 + size
    return {
        name: (t["dtype"], t["shape"], start + t["data_offsets"][0],
               t["data_offsets"][1] - t["data_offsets"][0])
        for name, t in header.items()
    }  # fmt: skip


def share(graph_path: Path, weights: Path) -> int:
    """Make the graph's initializers byte ranges of ``weights``; returns how many were replaced.

    ``weights`` must lie below the graph's folder (ONNX Runtime refuses paths that leave it).
    """
    import onnx

    model = onnx.load(graph_path)
    known = tensors(weights)
    location = os.path.relpath(weights, graph_path.parent)
    casts, replaced = [], 0
    for initializer in model.graph.initializer:
        entry = known.get(_original(initializer.name, known))
        if entry is None or list(initializer.dims) != entry[1]:
            continue
        casts += _point(initializer, entry, location)
        replaced += 1
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
    onnx.save(model, graph_path)
    return replaced


def _original(name: str, known: dict[str, Any]) -> str:
    """The tensor's own name below the wrappers that the tracer put around the module."""
    rest = name
    while rest not in known and "." in rest:
        rest = rest.partition(".")[2]
    return rest


def _point(initializer: Any, entry: tuple[str, list[int], int, int], location: str) -> list[Any]:
    """Turn an initializer into external data; returns the Cast that keeps its name, if any."""
    import onnx

    kind, _, offset, length = entry
    name = initializer.name
    initializer.ClearField("raw_data")
    initializer.ClearField("float_data")
    initializer.data_type = TYPES[kind]
    initializer.data_location = onnx.TensorProto.EXTERNAL
    facts = {"location": location, "offset": offset, "length": length}
    for key, value in facts.items():
        initializer.external_data.add(key=key, value=str(value))
    if TYPES[kind] == FLOAT32:
        return []
    initializer.name = name + ".stored"
    return [onnx.helper.make_node("Cast", [initializer.name], [name], to=FLOAT32)]
