"""Folders with graphs: which backend is meant, what is refused, what stays in torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.models.backends.onnx_network import OnnxCodec, OnnxTextEncoder, providers
from dit_tools.models.loading.load import load
from dit_tools.models.loading.onnx_loader import NumpyCodec, NumpyText
from dit_tools.models.loading.resolve import resolve
from tests.support.exports import exported, relative, sampled
from tests.support.loading import refused


@pytest.fixture(scope="module")
def transformer_only(folders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("onnx")
    return exported(folders("dit"), root / "out", parts=("transformer",))


def test_built_in_models_need_no_torch_parts() -> None:
    model = load("emoji")
    assert (model.backend, model.dtype, model.alpha) == ("onnx", "float32", True)
    assert isinstance(model.encode, OnnxTextEncoder) and isinstance(model.codec, OnnxCodec)


def test_exported_folders_run_in_torch_unless_asked(transformer_only: Path) -> None:
    assert load(str(transformer_only)).backend == "torch"
    model = load(str(transformer_only), backend="onnx")
    assert (model.backend, model.device, model.name) == ("onnx", "cpu", "out")
    assert (model.defaults.steps, model.defaults.size) == (50, model.family.default_size)


def test_parts_without_a_graph_stay_in_torch(transformer_only: Path) -> None:
    model = load(str(transformer_only), backend="onnx")
    assert isinstance(model.encode, NumpyText) and isinstance(model.codec, NumpyCodec)
    latents, pixels = sampled(model)
    torch = load(str(transformer_only), backend="torch")
    assert relative(latents, sampled(torch)[0]) < 1e-3
    assert relative(model.codec.encode(pixels), torch.codec.encode(pixels).numpy()) < 1e-3


def test_another_size_is_refused_before_anything_is_loaded(transformer_only: Path) -> None:
    side = load(str(transformer_only), backend="onnx").family.default_size
    other = (side, 2 * side)
    message = f"--size {2 * side}x{side}: the graph was exported for {side}x{side}"
    refused(transformer_only, message, UnsupportedError, backend="onnx", size=other)
    assert load(str(transformer_only), backend="onnx", size=(side, side)).backend == "onnx"


def test_no_graph_in_int8(transformer_only: Path) -> None:
    refused(
        transformer_only,
        "out has no transformer.int8.onnx; write one with 'dit export --int8'",
        UnsupportedError,
        backend="onnx",
        dtype="int8",
    )


def test_a_folder_without_graphs(folders: Callable[[str], Path]) -> None:
    refused(folders("sd3"), "no transformer.onnx; write one with 'dit export'", UnsupportedError, backend="onnx")


def test_damaged_graphs_and_weights(transformer_only: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(transformer_only, folder)
    whole = (folder / "transformer.onnx").read_bytes()
    (folder / "transformer.onnx").write_bytes(whole[: len(whole) // 2])
    refused(folder, "transformer.onnx: cannot be opened", ModelError, backend="onnx")
    (folder / "transformer.onnx").write_bytes(whole)
    (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()
    refused(folder, "transformer.onnx: cannot be opened", ModelError, backend="onnx")
    (folder / "export.json").write_text("{")
    refused(folder, "export.json: cannot be read", ModelError, backend="onnx")


def test_a_built_in_model_must_be_whole(tmp_path: Path) -> None:
    shutil.copytree(resolve("emoji").path, tmp_path / "model")
    (tmp_path / "model/vae_decoder.onnx").unlink()
    refused(tmp_path / "model", "vae_decoder.onnx is missing", ModelError, backend="onnx")


def test_a_pipeline_without_an_adapter(transformer_only: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(transformer_only, folder)
    index = folder / "model_index.json"
    table = json.loads(index.read_text()) | {"_class_name": "StableDiffusionPipeline"}
    index.write_text(json.dumps(table))
    refused(folder, "StableDiffusionPipeline has no adapter", UnsupportedError, backend="onnx")


TENSORRT, CUDA, CPU = (f"{kind}ExecutionProvider" for kind in ("Tensorrt", "CUDA", "CPU"))


def test_tensorrt_is_taken_where_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU, CUDA, TENSORRT])
    assert providers("tensorrt") == [TENSORRT, CUDA, CPU]
    assert providers("cuda:1") == [CUDA, CPU] and providers("auto") == providers("cpu") == [CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    refused(
        Path("emoji"),
        f"--device tensorrt: ONNX Runtime has no working {TENSORRT} here",
        UnsupportedError,
        device="tensorrt",
    )


def test_a_session_that_falls_back_to_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build with TensorRT on a machine without a GPU opens the graph on the CPU, silently."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    real, asked = onnxruntime.InferenceSession, []

    def session(path: Path, options: object, providers: list[str]) -> object:
        asked.append(providers)
        return real(path, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    refused(Path("emoji"), f"no working {TENSORRT} here; check the driver", UnsupportedError, device="tensorrt")
    assert asked[0] == [TENSORRT, CUDA, CPU]


def test_threads_of_every_graph_rest_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    real, told = onnxruntime.InferenceSession, {}

    def session(path: Path, options: onnxruntime.SessionOptions, providers: list[str]) -> object:
        told[path.name] = options.get_session_config_entry("session.force_spinning_stop")
        return real(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    load("emoji")
    assert {"transformer.onnx", "text_encoder.onnx", "vae_decoder.onnx"} <= told.keys()
    assert set(told.values()) == {"1"}


def test_forms_that_tensorrt_has_no_operators_for() -> None:
    refused(
        Path("emoji"),
        "--device tensorrt: it cannot run a graph of form=dynamic",
        UnsupportedError,
        device="tensorrt",
        backend="onnx",
        dtype="int8",
    )
