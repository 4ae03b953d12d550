"""Dynamic int8: close to float32, a file of its own, and an image independent of its batch."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.torch import load_file, save_file

from dit_tools.models.backends.onnx_network import OnnxNetwork
from dit_tools.models.loading.load import load
from dit_tools.tasks.export.int8 import quantize
from tests.support.exports import exported, sampled
from tests.support.loading import WEIGHTS, copy

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(models: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny PixArt whose weights are in half precision, exported with its graph in int8."""
    root = tmp_path_factory.mktemp("int8")
    source = copy(models("pixart"), root / "model")
    tensors = load_file(source / WEIGHTS)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, source / WEIGHTS)
    return exported(source, root / "out", parts=("transformer",), int8=True)


@pytest.fixture(scope="module")
def graph(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph alone in a folder of its own."""
    path = tmp_path_factory.mktemp("alone") / "alone.onnx"
    shutil.copyfile(folder / "transformer.int8.onnx", path)
    return path


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def feeds(batch: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    shapes = {"hidden_states": (batch, 4, 8, 8), "encoder_hidden_states": (batch, 9, 16)}
    made = {k: draw.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    made["hidden_states"] *= np.linspace(0.5, 2, batch, dtype=np.float32)[:, None, None, None]
    made["encoder_attention_mask"] = np.ones((batch, 9), dtype=np.int64)
    return made | {"timestep": np.full(batch, 500, dtype=np.float32)}


def test_it_is_close_and_alone(folder: Path, graph: Path) -> None:
    given = feeds(3)
    expected = session(folder / "transformer.onnx").run(None, given)[0]
    got = OnnxNetwork(session(graph), one_by_one=True)(**given)
    assert 0 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.03
    assert [path.name for path in graph.parent.iterdir()] == ["alone.onnx"]


def test_only_products_with_weights_are_in_int8(folder: Path, tmp_path: Path) -> None:
    count = quantize(folder / "transformer.onnx", tmp_path / "again.onnx")
    graph = onnx.load(tmp_path / "again.onnx").graph
    kinds = Counter(node.op_type for node in graph.node)
    # Per block: query, key, value and output of two attentions, two layers of the MLP; patches out.
    assert kinds["MatMulInteger"] == count >= 3 * 10 + 1
    assert kinds["MatMul"] >= 3 * 4  # scores and sums of the attentions
    assert json.loads((folder / "export.json").read_text())["graphs"]["transformer.int8"]["products"] == count


def test_weights_have_a_scale_per_channel_and_seven_bits(graph: Path) -> None:
    listed = onnx.load(graph).graph.initializer
    initializers = {i.name: onnx.numpy_helper.to_array(i) for i in listed}
    eight = {name: value for name, value in initializers.items() if value.dtype == np.int8}
    matrices = {name: value for name, value in eight.items() if value.ndim == 2}
    assert len(matrices) > 30
    for name, value in matrices.items():
        assert np.abs(value.astype(int)).max() <= 64
        scale = initializers[name.replace("_quantized", "_scale")]
        assert scale.shape == value.shape[1:]


def test_a_picture_does_not_depend_on_its_batch(graph: Path) -> None:
    given = feeds(3)
    network = OnnxNetwork(session(graph), one_by_one=True)
    together = network(**given)
    alone = network(**{name: value[1:2] for name, value in given.items()})
    assert np.array_equal(together[1:2], alone)
    raw = session(graph).run(None, given)[0]  # why the network calls it one by one
    assert not np.array_equal(raw[1:2], alone)


def test_it_is_chosen_by_its_precision(folder: Path) -> None:
    model = load(str(folder), backend="onnx", dtype="int8")
    assert (model.dtype, model.network.one_by_one) == ("int8", True)
    assert load(str(folder), backend="onnx").network.one_by_one is False


def test_shared_and_own_inputs_of_a_family(models: Folder, tmp_path: Path) -> None:
    """Flux has positions without a batch: they go along with every image."""
    folder = exported(models("flux"), tmp_path / "out", parts=("transformer",), int8=True)
    model = load(str(folder), backend="onnx", dtype="int8")
    assert not model.network._batched("img_ids") and model.network._batched("hidden_states")
    latents, _ = sampled(model)
    expected, _ = sampled(load(str(folder), backend="onnx"))
    assert np.linalg.norm(latents - expected) / np.linalg.norm(expected) < 0.1
