"""Dynamic int8: close to float32, a file of its own, and a picture independent of its batch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dit_tools.exporting.int8 import quantize
from dit_tools.models.load import load
from dit_tools.models.onnx_network import OnnxNetwork
from dit_tools.models.resolve import resolve
from tests.support.exports import exported, sampled

MODEL = resolve("emoji64").path


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "alone.onnx"
    assert quantize(MODEL / "transformer.onnx", path) > 50
    return path


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def feeds(batch: int) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    shapes = {"hidden_states": (batch, 16, 8, 8), "encoder_hidden_states": (batch, 16, 256)}
    made = {k: draw.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    made["hidden_states"] *= np.linspace(0.5, 2, batch, dtype=np.float32)[:, None, None, None]
    made["encoder_attention_mask"] = np.ones((batch, 16), dtype=np.int64)
    return made | {"timestep": np.full(batch, 500, dtype=np.float32)}


def test_it_is_close_and_smaller_and_alone(graph: Path) -> None:
    given = feeds(3)
    expected = session(MODEL / "transformer.onnx").run(None, given)[0]
    got = OnnxNetwork(session(graph), one_by_one=True)(**given)
    assert 0 < np.linalg.norm(got - expected) / np.linalg.norm(expected) < 0.03
    weights = MODEL / "transformer/diffusion_pytorch_model.safetensors"
    assert graph.stat().st_size < 0.65 * weights.stat().st_size  # which is in half precision
    assert [path.name for path in graph.parent.iterdir()] == ["alone.onnx"]


def test_weights_have_a_scale_per_channel_and_seven_bits(graph: Path) -> None:
    initializers = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(graph).graph.initializer}
    eight = {name: value for name, value in initializers.items() if value.dtype == np.int8}
    matrices = {name: value for name, value in eight.items() if value.ndim == 2}
    assert len(matrices) > 50
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


def test_an_exported_model_runs_in_int8(tmp_path: Path) -> None:
    source = tmp_path / "emoji64"
    shutil.copytree(MODEL, source)
    folder = str(exported(source, tmp_path / "out", parts=("transformer",), int8=True))
    model = load(folder, backend="onnx", dtype="int8")
    assert (model.dtype, model.network.one_by_one) == ("int8", True)
    latents, _ = sampled(model, steps=2, size=(64, 64))
    expected, _ = sampled(load(folder, backend="onnx"), steps=2, size=(64, 64))
    assert 0 < np.linalg.norm(latents - expected) / np.linalg.norm(expected) < 0.05


def test_shared_and_own_inputs_of_a_family(
    exports: Callable[[str], Path], models: Any, tmp_path: Path
) -> None:
    """Flux has positions without a batch: they go along with every picture."""
    folder = exported(models("flux"), tmp_path / "out", parts=("transformer",), int8=True)
    model = load(str(folder), backend="onnx", dtype="int8")
    assert not model.network._batched("img_ids") and model.network._batched("hidden_states")
    latents, _ = sampled(model)
    expected, _ = sampled(load(str(folder), backend="onnx"))
    assert np.linalg.norm(latents - expected) / np.linalg.norm(expected) < 0.1
