"""Weights of a few bits in a graph: ONNX Runtime's MatMulNBits on codes that a scheme chose.

A row of B holds a layer's codes in blocks that share a scale, lowest bits first, which is how
``nn.layouts.Layout`` lays them, so codes go from the one format into the other as they are. Scales
are float16 in the file and cast when the graph is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dit_tools.nn.packed_layout import Layout
from dit_tools.tasks.export.products import Product, finish_graph, plain_graph, products

Packed = Mapping[str, Any]
"""A layer's tensors by their suffix (``packed``, ``scale`` ...), numpy."""
BLOCKS = tuple(2**n for n in range(4, 9))
"""Weights that may share a scale."""
DOMAIN = "com.microsoft"


def refusal(layout: Layout) -> str:
    """Why MatMulNBits cannot run a layout, or nothing."""
    if layout.kind != "int" or layout.bits != 4:
        return f"{layout.name} is not int4"
    if layout.zero:
        return "a zero point"
    if layout.group and layout.group not in BLOCKS:
        return f"groups of {layout.group} weights"
    return ""


def write_nbits(source: Path, target: Path, layouts: Mapping[str, Layout], pack: Callable[[str, Any], Packed]) -> int:
    """Write the graph ``target``, products of ``layouts``' layers in few bits; returns how many.

    ``pack(layer, weight)`` gives a layer's tensors for its weight (out, in), numpy float32. A
    layout of 8 bits with a scale a row is stored as int8 and made float32 when the graph is opened.
    """
    import onnx

    with TemporaryDirectory(dir=target.parent, prefix=".dit-part-") as folder:
        model = plain_graph(source, Path(folder))
    graph = model.graph
    done, nodes, gone = 0, {}, set()
    for product in list(products(model, layouts)):
        layout, weight = layouts.get(product.layer), product.weight()
        if layout is None or weight.shape != (layout.rows, layout.columns):
            continue
        tensors = pack(product.layer, weight)
        made, constants = (_stored if layout.bits == 8 else _blocks)(product, layout, tensors)
        nodes[product.node.output[0]] = made
        gone.add(product.initializer.name)
        graph.initializer.extend(constants)
        done += 1
    _replace(graph, nodes, gone)
    model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    finish_graph(model, target)
    return done


def _replace(graph: Any, made: Mapping[str, list[Any]], gone: set[str]) -> None:
    """Put nodes in the places of those with these outputs; drop weights that nobody reads now."""
    nodes = []
    for node in graph.node:
        nodes += made.get(node.output[0], [node])
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input}
    kept = [e for e in graph.initializer if e.name not in gone or e.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _blocks(product: Product, layout: Layout, tensors: Packed) -> tuple[list[Any], list[Any]]:
    """Nodes and constants of a product in blocks, with balance and branch where there are any."""
    from onnx import helper

    x, y, name = product.node.input[0], product.node.output[0], product.initializer.name
    nodes, constants = [], []

    def constant(key: str, value: Any) -> str:
        made, cast = _half(f"{name}.{key}", value)
        constants.append(made)
        nodes.append(cast)
        return f"{name}.{key}"

    if layout.balance:
        nodes_in = constant("balance", tensors["balance"])
        nodes.append(helper.make_node("Mul", [x, nodes_in], [f"{y}.balanced"]))
        x = f"{y}.balanced"
    block = layout.group or max(BLOCKS[0], 1 << (layout.columns - 1).bit_length())
    count = math.ceil(layout.columns / block)
    constants.append(_whole(f"{name}.packed", _rows(tensors["packed"], count, block // 2)))
    whole = y if not layout.rank else f"{y}.whole"
    nodes.append(
        helper.make_node(
            "MatMulNBits",
            [x, f"{name}.packed", constant("scale", tensors["scale"].reshape(-1))],
            [whole],
            domain=DOMAIN,
            K=layout.columns,
            N=layout.rows,
            bits=layout.bits,
            block_size=block,
            accuracy_level=4 if layout.act == 8 else 1,
        )
    )
    if layout.rank:
        down, up = constant("down", tensors["down"].T), constant("up", tensors["up"].T)
        nodes += [
            helper.make_node("MatMul", [x, down], [f"{y}.down"]),
            helper.make_node("MatMul", [f"{y}.down", up], [f"{y}.up"]),
            helper.make_node("Add", [whole, f"{y}.up"], [y]),
        ]
    return nodes, constants


def _stored(product: Product, layout: Layout, tensors: Packed) -> tuple[list[Any], list[Any]]:
    """The product itself, on a weight that is int8 and a scale a column in the file."""
    import numpy as np
    from onnx import TensorProto, helper

    name = product.initializer.name
    codes = tensors["packed"].astype(np.int16) - 128
    scale, cast = _half(f"{name}.scale", tensors["scale"].reshape(1, -1))
    whole = _whole(f"{name}.packed", codes.astype(np.int8).T)
    nodes = [
        cast,
        helper.make_node("Cast", [whole.name], [f"{name}.whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.whole", f"{name}.scale"], [f"{name}.plain"]),
        helper.make_node("MatMul", [product.node.input[0], f"{name}.plain"], [product.node.output[0]]),
    ]
    return nodes, [whole, scale]


def _rows(packed: Any, count: int, size: int) -> Any:
    """Codes (out, bytes) as (out, blocks, bytes of a block), the last one filled up with zeros."""
    import numpy as np

    lacking = count * size - packed.shape[1]
    filled = np.pad(packed, ((0, 0), (0, lacking)), constant_values=0x88)
    return filled.reshape(len(packed), count, size)


def _whole(name: str, value: Any) -> Any:
    import numpy as np
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ascontiguousarray(value), name)


def _half(name: str, value: Any) -> tuple[Any, Any]:
    """A float16 constant and the Cast that gives it to the graph as ``name``."""
    import numpy as np
    from onnx import TensorProto, helper

    stored = _whole(f"{name}.half", value.astype(np.float16))
    return stored, helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT)
