"""Small graphs for quick starts: sizes are worked out once, offline, and only the batch stays free.

A graph traced with a free batch computes every shape again (Shape, Gather, Concat ...): hundreds of
nodes that ONNX Runtime reads, checks and optimizes at each start. A graph traced at one odd batch
size has constants there instead; ``free_batch`` finds that size in them and frees it.
"""

from __future__ import annotations

from pathlib import Path

TRACED_BATCH = 7
"""Batch of the trace: a prime that is no other size of a model, so that it can be told apart."""


def fold_constants(source: Path, target: Path, external: bool = False) -> None:
    """Write ``source`` with everything worked out that depends on constants alone.

    ``external`` puts large tensors into ``TARGET.data``; without it ``target`` may be ``source``.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    if external:
        name = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(name, f"{target.name}.data")
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def free_batch(graph: Path, names: set[str], traced: int = TRACED_BATCH) -> int:
    """Free axis 0 of the inputs and outputs ``names`` in a graph traced at batch ``traced``.

    Returns how many constants were freed. Raises ValueError for a constant that holds the batch
    where this cannot be said in ONNX; what it does not see shows when the graph is compared with
    torch at another batch size, which the caller must do.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(graph)
    constants = {entry.name: entry for entry in model.graph.initializer}
    freed: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("Reshape", "Expand") or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]])
        new = _free(node.op_type, shape.tolist(), traced)
        if new == shape.tolist():
            continue
        name = f"{node.input[1]}.{node.op_type}.free"  # others may read the same constant
        if name not in freed:
            freed.add(name)
            model.graph.initializer.append(numpy_helper.from_array(np.array(new, np.int64), name))
        node.input[1] = name
    for entry in (*model.graph.input, *model.graph.output):
        if entry.name in names:
            entry.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]  # shapes at the traced batch
    used = {name for node in model.graph.node for name in node.input}
    kept = [entry for entry in model.graph.initializer if entry.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, graph)
    return len(freed)


def _free(kind: str, shape: list[int], traced: int) -> list[int]:
    """A constant shape without the traced batch.

    Reshape: 0 copies the input's axis 0, -1 takes what is left (batch and heads in one axis).
    Expand: 1 leaves an axis as it is.
    """
    if not shape or shape[0] <= 0 or shape[0] % traced:
        return shape
    if kind == "Expand":
        return [1, *shape[1:]]
    if -1 not in shape:
        return [-1, *shape[1:]]
    if shape[0] == traced:
        return [0, *shape[1:]]
    raise ValueError(f"a Reshape to {shape} cannot be freed of batch {traced}")
