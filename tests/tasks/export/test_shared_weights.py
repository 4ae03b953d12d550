"""Initializers become byte ranges of safetensors files, in every precision, or are embedded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from dit_tools.tasks.export import shared_weights
from dit_tools.tasks.export.shared_weights import Attached, attach_weights, share_weights, tensors
from dit_tools.tasks.export.trace import trace


class Net(torch.nn.Module):
    """A linear layer, a computed table, and one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("table", torch.arange(6.0))

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x)) + self.table


def made(folder: Path, dtype: torch.dtype = torch.float32, weights: bool = False) -> Net:
    """``net.onnx`` without weights and ``w/net.safetensors`` in one precision; the net in it."""
    net = Net().to(dtype).float()
    (folder / "w").mkdir()
    kept = {f"first.{k}": v.to(dtype) for k, v in net.first.state_dict().items()}
    save_file(kept, folder / "w/net.safetensors")
    trace(net, {"x": torch.ones(2, 6)}, "y", folder / "net.onnx", {}, weights=weights)
    return net


def run(path: Path) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["x"]
    return session.run(None, {"x": np.ones((2, 6), np.float32)})[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_weights_are_pointed_at_and_tables_embedded(dtype: torch.dtype, tmp_path: Path) -> None:
    net = made(tmp_path, dtype)
    found = attach_weights(tmp_path / "net.onnx", net, [tmp_path / "w/net.safetensors"])
    assert found == Attached(shared=2, embedded=6 * 4)  # tied weights are one input
    expected = net(torch.ones(2, 6)).detach().numpy()
    np.testing.assert_allclose(run(tmp_path / "net.onnx"), expected, rtol=1e-6, atol=1e-6)


def test_the_file_is_used_and_not_a_copy(tmp_path: Path) -> None:
    net = made(tmp_path)
    attach_weights(tmp_path / "net.onnx", net, [tmp_path / "w/net.safetensors"])
    (tmp_path / "w/net.safetensors").unlink()
    with pytest.raises(Exception, match="net.safetensors"):
        run(tmp_path / "net.onnx")


@pytest.mark.parametrize("limit", [100, 1000])
def test_large_embedded_weights_go_beside_the_graph(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_weights, "SMALL", 16)
    net = made(tmp_path)
    found = attach_weights(tmp_path / "net.onnx", net, [], limit=limit)
    assert found == Attached(shared=0, embedded=(36 + 6 + 6) * 4)
    data = tmp_path / "net.onnx.data"
    assert data.exists() == (limit == 100)
    assert limit == 1000 or data.stat().st_size >= found.embedded
    expected = net(torch.ones(2, 6)).detach().numpy()
    np.testing.assert_allclose(run(tmp_path / "net.onnx"), expected, rtol=1e-6, atol=1e-6)


def test_a_tensor_of_another_shape_is_not_taken(tmp_path: Path) -> None:
    net = made(tmp_path)
    save_file({"first.weight": torch.zeros(3, 12)}, tmp_path / "w/other.safetensors")
    found = attach_weights(tmp_path / "net.onnx", net, [tmp_path / "w/other.safetensors"])
    assert found.shared == 0


def test_share_replaces_initializers_that_are_there(tmp_path: Path) -> None:
    net = made(tmp_path, torch.float16, weights=True)
    assert share_weights(tmp_path / "net.onnx", tmp_path / "w/net.safetensors") == 2
    expected = net(torch.ones(2, 6)).detach().numpy()
    np.testing.assert_allclose(run(tmp_path / "net.onnx"), expected, rtol=1e-6, atol=1e-6)


def test_offsets_are_those_of_the_bytes(tmp_path: Path) -> None:
    made(tmp_path)
    path = tmp_path / "w/net.safetensors"
    kind, shape, offset, length = tensors(path)["first.bias"]
    raw = path.read_bytes()[offset : offset + length]
    assert (kind, shape) == ("F32", [6])
    assert np.array_equal(np.frombuffer(raw, "<f4"), Net().first.bias.detach().numpy())


def test_no_weight_is_written_twice(tmp_path: Path) -> None:
    net = made(tmp_path)
    attach_weights(tmp_path / "net.onnx", net, [tmp_path / "w/net.safetensors"])
    graph = onnx.load(tmp_path / "net.onnx", load_external_data=False).graph
    names = [initializer.name for initializer in graph.initializer]
    assert len(names) == len(set(names)) == 3
