"""A graph in half precision, inputs and outputs in float32.

Written out here because ONNX Runtime's own converter rounds between two nodes that it was told to
leave alone, and gives a value that two of them read two definitions.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dit_tools.tasks.export.products import finish_graph, plain_graph

WIDE = ("Sin", "Cos", "Range", "Resize")
"""Operators that stay in float32, with everything that leads to them: times run to 1000, where
float16 has steps of a half; the last two know no float16 or want some of their inputs wide."""
FLOAT, HALF = 1, 10  # onnx.TensorProto element types


def halve(source: Path, target: Path) -> int:
    """Write the graph ``target`` with float16 weights and arithmetic; returns its weights."""
    with TemporaryDirectory(dir=target.parent, prefix=".dit-part-") as folder:
        model = plain_graph(source, Path(folder))
    count = _convert(model)
    finish_graph(model, target)
    return count


def _convert(model: Any) -> int:
    """Rewrite a graph in place; returns how many constants became float16."""
    from onnx import helper

    graph = model.graph
    floats, wide = _floats(model), _wide(graph)
    constants = {entry.name: entry for entry in graph.initializer}
    wide_reads = {name for i in wide for name in graph.node[i].input}
    # What stays float32 though others may want it in half precision:
    full = {entry.name for entry in graph.input} | (wide_reads & constants.keys())
    full |= {name for i in wide for name in graph.node[i].output}
    ends = {entry.name for entry in graph.output} & floats - full
    renamed = {name: f"{name}.half" for name in (full & floats) | ends}
    cast = {name: helper.make_node("Cast", [name], [renamed[name]], to=HALF) for name in sorted(full & floats)}
    made = {name for node in graph.node for name in node.output}
    nodes = [node for name, node in cast.items() if name not in made]
    for i, node in enumerate(graph.node):
        if i not in wide:
            _narrow(node, renamed, ends)
        nodes.append(node)
        nodes += [cast[name] for name in node.output if name in cast]
    nodes += [helper.make_node("Cast", [renamed[name]], [name], to=FLOAT) for name in sorted(ends)]
    del graph.node[:]
    graph.node.extend(nodes)
    halved = [e for e in constants.values() if e.data_type == FLOAT and e.name not in full]
    for entry in halved:
        _halve(entry)
    return len(halved)


def _floats(model: Any) -> set[str]:
    """Names of the values in float32."""
    import onnx

    typed = onnx.shape_inference.infer_shapes(model).graph
    values = (*typed.value_info, *typed.input, *typed.output)
    found = {entry.name for entry in values if entry.type.tensor_type.elem_type == FLOAT}
    return found | {entry.name for entry in typed.initializer if entry.data_type == FLOAT}


def _wide(graph: Any) -> set[int]:
    """Positions of the nodes that stay in float32."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output}
    waiting = [i for i, node in enumerate(graph.node) if node.op_type in WIDE]
    found: set[int] = set()
    while waiting:
        i = waiting.pop()
        if i not in found:
            found.add(i)
            waiting += [makers[name] for name in graph.node[i].input if name in makers]
    return found


def _narrow(node: Any, renamed: dict[str, str], ends: set[str]) -> None:
    """Let a node read and give float16."""
    for i, name in enumerate(node.input):
        node.input[i] = renamed.get(name, name)
    for i, name in enumerate(node.output):
        node.output[i] = renamed[name] if name in ends else name
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
            attribute.i = HALF
        if attribute.HasField("t") and attribute.t.data_type == FLOAT:
            _halve(attribute.t)


def _halve(tensor: Any) -> None:
    import numpy as np
    from onnx import numpy_helper

    array = numpy_helper.to_array(tensor).clip(-65504, 65504).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
