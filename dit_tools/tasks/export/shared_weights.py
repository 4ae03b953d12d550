"""Graphs without weights of their own: initializers become byte ranges of a safetensors file.

A safetensors file is a header and raw little-endian tensors, which is what ONNX calls external
data, so a graph can point straight into it. Half-precision tensors are followed by a Cast to
float32, which ONNX Runtime folds when it opens the graph. One copy of the weights then serves both
backends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TYPES = {"F32": 1, "F16": 10, "BF16": 16}  # onnx.TensorProto element types
FLOAT32 = 1
EMBED_LIMIT = 1 << 30
"""Bytes of embedded weights above which they move to a file next to the graph: protobuf ends at
2 GB, and the graph itself needs space."""


def tensors(path: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """Name -> (dtype, shape, absolute offset, length) of every tensor of a safetensors file."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    start = 8 + size
    return {
        name: (t["dtype"], t["shape"], start + t["data_offsets"][0], t["data_offsets"][1] - t["data_offsets"][0])
        for name, t in header.items()
    }


def share_weights(graph_path: Path, weights: Path) -> int:
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


SMALL = 1024
"""Bytes of a tensor that stays in the graph when others move to a file next to it."""


@dataclass(frozen=True)
class Attached:
    """How many weights a graph shares with safetensors files, and bytes that it holds itself."""

    shared: int
    embedded: int


def attach_weights(graph_path: Path, module: Any, weights: Sequence[Path], limit: int = EMBED_LIMIT) -> Attached:
    """Give a graph that was traced without weights those of ``module``, in float32.

    Tensors of the files ``weights`` (below the graph's folder) are pointed at; what is in none of
    them, as computed tables are, is embedded, or put into ``NAME.onnx.data`` beyond ``limit``
    bytes.
    """
    import onnx

    model = onnx.load(graph_path)
    held, names = _held(module)
    free = [entry for entry in model.graph.input if _original(entry.name, held) in held]
    known = {name: (path, entry) for path in weights for name, entry in tensors(path).items()}
    casts, shared, embedded = [], 0, 0
    for entry in free:
        tensor = held[_original(entry.name, held)]
        match = next((known[n] for n in names[id(tensor)] if _same(n, tensor, known)), None)
        if match is None:
            initializer = _embed(entry.name, tensor)
            embedded += len(initializer.raw_data)
        else:
            initializer = onnx.TensorProto(name=entry.name, dims=tensor.shape)
            location = os.path.relpath(match[0], graph_path.parent)
            casts += _point(initializer, match[1], location)
            shared += 1
        model.graph.initializer.append(initializer)
        model.graph.input.remove(entry)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
    save_graph(model, graph_path, external=embedded > limit)
    return Attached(shared, embedded)


def save_graph(model: Any, path: Path, external: bool) -> None:
    """Write a graph, its embedded tensors in ``NAME.onnx.data`` when ``external``."""
    import onnx

    if not external:
        onnx.save(model, path)
        return
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location=f"{path.name}.data",
        size_threshold=SMALL,
        convert_attribute=False,
    )


def _held(module: Any) -> tuple[dict[str, Any], dict[int, list[str]]]:
    """Name -> tensor of a module, and all names of each tensor by its id (weights may be tied)."""
    held = dict(module.named_parameters(remove_duplicate=False))
    held |= dict(module.named_buffers(remove_duplicate=False))
    names: dict[int, list[str]] = {}
    for name, tensor in held.items():
        names.setdefault(id(tensor), []).append(name)
    stripped = {key: [part for n in many for part in _suffixes(n)] for key, many in names.items()}
    return held, stripped


def _suffixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


def _same(name: str, tensor: Any, known: Mapping[str, Any]) -> bool:
    if name not in known:
        return False
    kind, shape, *_ = known[name][1]
    return kind in TYPES and shape == list(tensor.shape)


def _embed(name: str, tensor: Any) -> Any:
    from onnx import numpy_helper

    value = tensor.detach().cpu()
    value = value.float() if value.is_floating_point() else value
    return numpy_helper.from_array(value.numpy(), name)


def _original(name: str, known: Mapping[str, Any]) -> str:
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
