"""A built-in model's folder with its int8 graph, as ``dit quantize`` writes it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from dit_tools.core import spec
from dit_tools.core.errors import ModelError, UnsupportedError, UsageError
from dit_tools.models.loading import load as loading
from dit_tools.models.loading.resolve import builtin_names, resolve
from dit_tools.tasks.quantize import packed_folder, release
from dit_tools.tasks.quantize.quantize import EvalConfig
from tests.support.exports import relative, sampled
from tests.tasks.export.test_builtin import FACTS, trained

__all__ = ["trained"]
TRIAL = EvalConfig(prompts=1, steps=2, device="cpu")
INT8 = "transformer.int8.onnx"
TOOL = Path(__file__).parents[3] / "tools/release.py"


def graph(path: Path) -> bytes:
    return onnx.load(path).graph.SerializeToString()


@pytest.fixture(scope="module")
def models(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of built-in models: one described by people and exported, and its parent with the notice."""
    models = tmp_path_factory.mktemp("models")
    folder = models / "tiny-small"
    folder.mkdir()
    (models / "tiny").mkdir()
    (folder / "dit.json").write_text(json.dumps(FACTS | {"alpha": True, "onnx_size": [32, 32]}))
    (folder / "README.md").write_text("card")
    (folder / "recipe.toml").write_text("name = 'tiny-small'")
    with pytest.raises(ModelError, match="NOTICE.txt: cannot be read: No such file"):
        release.export("tiny-small", trained, models)
    (models / "tiny/NOTICE.txt").write_text("notice")
    release.export("tiny-small", trained, models)
    release.add_int8(folder, TRIAL)
    return models


def test_documents_stay_and_are_listed_anew(models: Path) -> None:
    folder = models / "tiny-small"
    assert (folder / "recipe.toml").read_text() == "name = 'tiny-small'"
    before = json.loads((folder / "dit.json").read_text())
    (folder / "README.md").write_text("another card")
    words = [sys.executable, TOOL, "tiny-small", "--documents", "--builtin", models]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    after = json.loads((folder / "dit.json").read_text())
    assert after["files"].pop("README.md") != before["files"].pop("README.md")
    assert after == before


def test_the_folder_lists_its_graph_and_keeps_its_facts(models: Path) -> None:
    folder = models / "tiny-small"
    facts = json.loads((folder / "dit.json").read_text())
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(facts["files"]) == there - {"dit.json"} and INT8 in there
    assert facts["onnx_size"] == [32, 32] and facts["name"] == "tiny-small"
    assert (folder / "NOTICE.txt").read_text() == "notice"
    card = {entry.key: entry.value for entry in onnx.load(folder / INT8).metadata_props}
    assert json.loads(card["dit.revision"]) == facts["revision"] != ""
    assert json.loads(card["dit.target"]) == "onnx:beside=true"
    assert json.loads(card["dit.verdict"])["psnr"] > 20


def test_dtype_int8_runs_it_without_another_option(models: Path) -> None:
    folder = str(models / "tiny-small")
    model = loading.load(folder, dtype="int8")
    assert (model.backend, model.dtype) == ("onnx", "int8")
    assert getattr(model.network, "one_by_one") is True  # noqa: B009
    plain = loading.load(folder)
    assert (plain.backend, plain.dtype) == ("onnx", "float32")
    made, exact = (sampled(one, size=(32, 32))[0] for one in (model, plain))
    assert 0 < relative(made, exact) < 0.1


@pytest.mark.parametrize(
    "wishes, message",
    [
        ({"backend": "torch"}, "--dtype int8 cannot serve --backend torch"),
        ({"device": "cuda"}, "--dtype int8 cannot serve --device cuda"),
        ({"loras": ("x",)}, "--dtype int8 cannot serve --lora"),
        ({"needs": frozenset({"blocks"})}, "cannot serve a method that needs blocks"),
        ({"size": (64, 64)}, "the graph of tiny-small serves one size; leave --size out"),
    ],
)
def test_what_the_graph_cannot_serve_is_refused(models: Path, wishes: dict, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        loading.load(str(models / "tiny-small"), dtype="int8", **wishes)


def test_the_command_writes_the_whole_model_with_the_same_graph(models: Path, tmp_path: Path) -> None:
    source = models / "tiny-small"
    target = spec.parse("formats", release.TARGET)
    wanted = packed_folder.QuantizeConfig(tmp_path / "out", target.scheme(None))
    facts = target.make(resolve(str(source)), wanted, EvalConfig(prompts=0), lambda event: None)
    assert graph(tmp_path / "out" / INT8) == graph(source / INT8)
    assert facts["bytes"] < (source / INT8).stat().st_size  # the card is there by then
    for name in ("transformer.onnx", "transformer/diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert loading.load(str(tmp_path / "out"), dtype="int8").dtype == "int8"
    assert loading.load(str(tmp_path / "out"), backend="torch").backend == "torch"


def test_what_is_refused_before_the_work(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="beside=true is for form=dynamic, not fp16"):
        spec.parse("formats", "onnx:form=fp16,beside=true").scheme(None)
    bare = tmp_path / "bare"
    shutil.copytree(models / "tiny-small", bare, ignore=shutil.ignore_patterns("*.onnx"))
    target = spec.parse("formats", release.TARGET)
    with pytest.raises(UnsupportedError, match="has no graphs to put one next to"):
        target.plan(resolve(str(bare)), packed_folder.QuantizeConfig(tmp_path / "out", target.scheme(None)), False)


@pytest.mark.parametrize("name", builtin_names())
def test_the_shipped_file_is_what_the_command_writes(name: str, tmp_path: Path) -> None:
    source = resolve(name)
    target = spec.parse("formats", release.TARGET)
    wanted = packed_folder.QuantizeConfig(tmp_path / "out", target.scheme(None))
    target.make(source, wanted, EvalConfig(prompts=0), lambda event: None)
    assert graph(tmp_path / "out" / INT8) == graph(source.path / INT8)
