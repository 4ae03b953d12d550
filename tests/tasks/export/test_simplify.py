"""Graphs traced at one batch size serve every batch size, without computing shapes again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from dit_tools.tasks.export.simplify import TRACED_BATCH, fold_constants, free_batch
from dit_tools.tasks.export.trace import trace


class Attention(torch.nn.Module):
    """Heads split off, merged with the batch, and a bias expanded over it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x, t):
        batch, tokens, width = x.shape
        heads = self.linear(x).view(batch, -1, 2, width // 2).transpose(1, 2)
        merged = heads.reshape(batch * 2, tokens, width // 2).softmax(-1)
        shift = t[:1].expand(batch)[:, None, None] + t[:, None, None]
        return merged.reshape(batch, 2, tokens, width // 2).transpose(1, 2).flatten(2) + shift


def test_a_graph_traced_at_seven_serves_every_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, path = Attention().eval(), tmp_path / "graph.onnx"

    def inputs(batch: int) -> dict[str, torch.Tensor]:
        return {"x": torch.randn(batch, 4, 8), "t": torch.rand(batch)}

    trace(module, inputs(TRACED_BATCH), "y", path, {})
    fold_constants(path, path)
    assert free_batch(path, {"x", "t", "y"}) > 0
    graph = onnx.load(path).graph
    assert "Shape" not in {node.op_type for node in graph.node}
    used = {name for node in graph.node for name in node.input}
    assert {entry.name for entry in graph.initializer} <= used
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 3, TRACED_BATCH, 14):
        given = inputs(batch)
        got = session.run(None, {name: value.numpy() for name, value in given.items()})[0]
        np.testing.assert_allclose(got, module(**given).detach().numpy(), atol=1e-6)


def test_a_shape_that_would_have_two_unknowns_is_refused(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([2 * TRACED_BATCH, -1]), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [TRACED_BATCH, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2 * TRACED_BATCH, 2])],
        [shape],
    )
    onnx.save(helper.make_model(graph), tmp_path / "graph.onnx")
    with pytest.raises(ValueError, match="cannot be freed"):
        free_batch(tmp_path / "graph.onnx", {"x", "y"})
