"""The matrix products of a folded graph: which weight each has, and which layer it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dit_tools.tasks.export.simplify import fold_constants


@dataclass(frozen=True)
class Product:
    """``node`` is a MatMul by a constant (in, out); ``layer`` its name in torch, empty if unknown.

    Weights that a graph works out beforehand, such as tables of positions, have no layer.
    """

    node: Any
    initializer: Any
    layer: str

    def weight(self) -> Any:
        """The constant (out, in), as ``nn.Linear`` has it, numpy float32."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.initializer).T


def plain_graph(source: Path, folder: Path) -> Any:
    """The graph ``source`` folded, its weights inside, every Gemm a MatMul and an Add.

    ONNX Runtime's quantizers treat MatMul only in some formats, and torch's linear layers come as
    either. ``folder`` is scratch space.
    """
    import onnx
    from onnxruntime.quantization.onnx_model import ONNXModel

    folded = folder / "folded.onnx"
    fold_constants(source, folded, external=True)
    model = ONNXModel(onnx.load(folded))
    model.replace_gemm_with_matmul()
    model.clean_initializers()
    return model.model


def products(model: Any, layers: Collection[str] = ()) -> Iterator[Product]:
    """Every product with a constant matrix, in the graph's order.

    ``layers``: names of torch's linear layers; torch's exporter puts a layer's path into the names
    of its nodes (``/inner/net/transformer_blocks.0/attn1/to_q/MatMul``).
    """
    constants = {entry.name: entry for entry in model.graph.initializer}
    ends = {f".{name}.": name for name in layers}
    for node in model.graph.node:
        entry = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if entry is not None and len(entry.dims) == 2:
            yield Product(node, entry, _layer(node.name, ends))


def _layer(node: str, ends: dict[str, str]) -> str:
    """The longest of the layers' names that the node's path holds."""
    path = f".{node.strip('/').replace('/', '.')}."
    found = [name for end, name in ends.items() if end in path]
    return max(found, key=len, default="")


def shorten_names(model: Any) -> None:
    """Drop what only a reader of the graph needs: names of nodes and of values in between.

    On the first built-in model that is a twentieth of the file in eight bits. Names of weights,
    inputs and outputs stay. Graphs with graphs inside are left alone.
    """
    graph = model.graph
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    kept = {entry.name for entry in (*graph.initializer, *graph.input, *graph.output)}
    kept |= {name.removesuffix(".stored") for name in kept}
    short: dict[str, str] = {}
    for node in graph.node:
        node.name, node.doc_string = "", ""
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name and name not in kept:
                    names[i] = short.setdefault(name, f"_{len(short):x}")
    del graph.value_info[:]


def finish_graph(model: Any, target: Path) -> None:
    """Write a quantized graph as small as it gets."""
    compact_constants(model)
    shorten_names(model)
    save_graph(model, target)


def save_graph(model: Any, target: Path) -> None:
    """Write a graph, with its weights next to it where they do not fit into one file."""
    from dit_tools.tasks.export import shared_weights

    size = model.ByteSize()
    shared_weights.save_graph(model, target, external=size > shared_weights.EMBED_LIMIT)


SMALL = 64
"""Numbers of a constant that is not worth a Cast of its own."""
SCALES = ("_scale", "_zero_point", "_quantized")
"""Ends of names that the quantizers give: ONNX Runtime fuses what reads them as they are."""


def compact_constants(model: Any) -> None:
    """Store as float16, and cast when the graph is opened, what float16 holds exactly.

    Models that were trained or saved in half precision have such weights in every bias and in what
    is not quantized.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    casts = []
    for entry in graph.initializer:
        if entry.data_type != TensorProto.FLOAT or entry.name.endswith(SCALES):
            continue
        array = numpy_helper.to_array(entry)
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if array.size < SMALL or not np.array_equal(half.astype(np.float32), array):
            continue
        name = entry.name
        entry.CopyFrom(numpy_helper.from_array(half, f"{name}.stored"))
        casts.append(helper.make_node("Cast", [entry.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
