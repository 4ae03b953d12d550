"""A model's folder to a folder with graphs: whole or absent, and refused before work begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.torch import load_file, save_file

from dit_tools.core.errors import InputError, ModelError, UnsupportedError
from dit_tools.models.backends.onnx_split import PIECES
from dit_tools.models.loading.load import load
from dit_tools.models.loading.resolve import resolve
from dit_tools.tasks.export import write as writing
from dit_tools.tasks.export.export import export, max_tokens
from dit_tools.tasks.export.preflight import ExportConfig
from dit_tools.tasks.export.write import Different
from tests.support.exports import exported, relative, sampled
from tests.support.loading import WEIGHTS, copy

Folder = Callable[[str], Path]
PARTS = ("transformer",)


def everything(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_the_folder_is_a_model_of_its_own(models: Folder, exports: Folder) -> None:
    graphs = {"transformer.onnx", "vae_decoder.onnx", "vae_encoder.onnx"}
    graphs |= {f"transformer.{piece}.onnx" for piece in PIECES}
    found = set(everything(exports("sd3"))) - set(everything(models("sd3")))
    assert found == graphs | {"export.json"}
    assert set(everything(models("sd3"))) < set(everything(exports("sd3")))
    facts = json.loads((exports("sd3") / "export.json").read_text())
    assert (facts["dit_export"], facts["family"], facts["opset"]) == (1, "sd3", 17)
    assert facts["model"] == "sd3" and facts["revision"] == resolve(str(models("sd3"))).revision
    assert set(facts["versions"]) == {"torch", "diffusers", "onnxruntime"}


def test_the_same_folder_gives_the_same_bytes(models: Folder, tmp_path: Path) -> None:
    made = [exported(models("dit"), tmp_path / name, parts=PARTS) for name in ("a", "b")]
    texts = [(folder / "transformer.onnx").read_bytes() for folder in made]
    assert texts[0] == texts[1]
    assert everything(made[0]) == everything(made[1])


def test_tell_hears_of_every_graph(models: Folder, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    wanted = ExportConfig(tmp_path / "out", parts=PARTS, int8=True, check=False)
    paths = export(resolve(str(models("dit"))), wanted, events.append)
    names = ["transformer.onnx", "transformer.int8.onnx"]
    assert [path.name for path in paths] == names
    assert all(path.exists() for path in paths)
    assert [(e["type"], Path(e["path"]).name, e["difference"]) for e in events] == [
        ("graph", name, None) for name in names
    ]


def test_another_opset(models: Folder, tmp_path: Path) -> None:
    folder = exported(models("pixart"), tmp_path / "out", parts=PARTS, opset=20)
    assert onnx.load(folder / "transformer.onnx").opset_import[0].version == 20
    got, expected = (sampled(load(str(folder), backend=b))[0] for b in ("onnx", "torch"))
    assert relative(got, expected) < 1e-3


def test_half_precision_weights_stay_half_and_are_computed_in_float32(models: Folder, tmp_path: Path) -> None:
    source = copy(models("sd3"), tmp_path / "model")
    tensors = load_file(source / WEIGHTS)
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, source / WEIGHTS)
    folder = exported(source, tmp_path / "out", parts=PARTS)
    assert (folder / WEIGHTS).read_bytes() == (source / WEIGHTS).read_bytes()
    facts = json.loads((folder / "export.json").read_text())
    assert facts["graphs"]["transformer"]["difference"] < 1e-5
    got, expected = (sampled(load(str(folder), backend=b, dtype="float32"))[0] for b in ("onnx", "torch"))
    assert relative(got, expected) < 1e-3


def test_a_graph_that_differs_is_not_kept(models: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "TOLERANCE", 0.0)
    with pytest.raises(Different, match="transformer.onnx differs from torch by .*; please report"):
        exported(models("dit"), tmp_path / "out", parts=PARTS)
    assert list(tmp_path.iterdir()) == []


def test_an_output_of_zeros_is_compared(models: Folder, tmp_path: Path) -> None:
    source = copy(models("dit"), tmp_path / "model")
    tensors = load_file(source / WEIGHTS)
    for name in ("proj_out_2.weight", "proj_out_2.bias"):  # as training starts
        tensors[name].zero_()
    save_file(tensors, source / WEIGHTS)
    folder = exported(source, tmp_path / "out", parts=PARTS)
    facts = json.loads((folder / "export.json").read_text())
    assert facts["graphs"]["transformer"]["difference"] == 0


def test_a_damaged_config_is_a_model_error(models: Folder, tmp_path: Path) -> None:
    source = copy(models("dit"), tmp_path / "model")
    path = source / "transformer/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": 1, "in_channels": 5}))
    with pytest.raises(ModelError, match="transformer: cannot be loaded"):
        exported(source, tmp_path / "out", parts=PARTS)
    assert not (tmp_path / "out").exists()


def test_nan_counts_as_different(models: Folder, tmp_path: Path) -> None:
    source = copy(models("dit"), tmp_path / "model")
    tensors = load_file(source / WEIGHTS)
    tensors["proj_out_2.bias"][:] = np.nan
    save_file(tensors, source / WEIGHTS)
    with pytest.raises(Different, match="by nan"):
        exported(source, tmp_path / "out", parts=PARTS)
    assert not (tmp_path / "out").exists()


def test_an_interrupt_leaves_nothing(models: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "compare_with_torch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exported(models("dit"), tmp_path / "out", parts=PARTS)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused_and_replaced_whole(models: Folder, tmp_path: Path) -> None:
    out = exported(models("dit"), tmp_path / "out", parts=PARTS, check=False)
    (out / "stale.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match="exists; add --overwrite"):
        export(resolve(str(models("dit"))), ExportConfig(out, parts=PARTS))
    assert (out / "stale.onnx").exists()
    export(resolve(str(models("dit"))), ExportConfig(out, parts=PARTS, overwrite=True, check=False))
    assert not (out / "stale.onnx").exists() and (out / "transformer.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_missing_tensors_are_not_made_up(models: Folder, tmp_path: Path) -> None:
    source = copy(models("dit"), tmp_path / "model")
    tensors = load_file(source / WEIGHTS)
    del tensors["proj_out_2.bias"]
    save_file(tensors, source / WEIGHTS)
    with pytest.raises(ModelError, match="transformer: its weights lack proj_out_2.bias"):
        exported(source, tmp_path / "out", parts=PARTS)


def test_text_length_of_pixart_is_that_of_its_pipeline(models: Folder) -> None:
    assert max_tokens(models("pixart")) == 300
    assert max_tokens(models("pixart-alpha")) == 120


def test_a_built_in_model_keeps_its_facts(models: Folder, tmp_path: Path) -> None:
    source = copy(models("pixart"), tmp_path / "shipped")
    stated = {"name": "shipped", "size": 32, "max_tokens": 9, "alpha": False, "licence": "MIT"}
    (source / "dit.json").write_text(json.dumps(stated | {"onnx_size": [32, 32], "files": {}}))
    out = exported(source, tmp_path / "out")
    assert (out / "text_encoder.onnx").exists()
    facts = json.loads((out / "dit.json").read_text())
    assert facts.keys() == stated.keys() | {"files", "revision"}  # its size is free now
    assert {key: facts[key] for key in stated} == stated
    for name in ("transformer.onnx", "export.json", WEIGHTS):
        digest = hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert facts["files"][name]["sha256"] == digest
    assert json.loads((out / "export.json").read_text())["max_tokens"] == 9


def test_a_single_file_cannot_be_exported(models: Folder, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="a single file cannot be exported"):
        export(resolve(str(models("dit") / WEIGHTS)), ExportConfig(tmp_path / "out"))
