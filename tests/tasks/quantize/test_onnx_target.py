"""``--target onnx``: every form opens, is close to the full model, small, and says what it is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from dit_tools.core import spec
from dit_tools.core.errors import InputError, UnsupportedError, UsageError
from dit_tools.models.loading.load import load
from dit_tools.models.loading.resolve import resolve
from dit_tools.tasks.export import int8
from dit_tools.tasks.quantize import packed_folder
from dit_tools.tasks.quantize.quantize import EvalConfig
from tests.support.exports import relative, sampled

TRIAL = EvalConfig(prompts=1, calibration=1, steps=2, device="cpu")


def make(source: Path, out: Path, text: str, scheme: str | None = None, trial: EvalConfig = TRIAL):
    target = spec.parse("formats", f"onnx:{text}")
    wanted = packed_folder.QuantizeConfig(out, target.scheme(scheme))
    return target.make(resolve(str(source)), wanted, trial, lambda event: None)


def kinds(path: Path) -> Counter:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


FORMS = [
    ("form=dynamic", None, "MatMulInteger", 0.1),
    ("form=static", None, "QuantizeLinear", 0.4),
    ("form=int4", "svd:group=16,rank=2", "MatMulNBits", 0.3),
    ("form=int4", "vidit-q:bits=4,group=16", "MatMulNBits", 0.3),
    ("form=fp16", None, "Cast", 0.01),
]


@pytest.fixture(scope="module")
def full(folders):
    return sampled(load(str(folders("pixart")), device="cpu"))[0]


@pytest.mark.parametrize("text, scheme, kind, error", FORMS)
def test_forms_open_and_are_close(text, scheme, kind, error, folders, full, tmp_path):
    facts = make(folders("pixart"), tmp_path / "out", text, scheme)
    assert kinds(tmp_path / "out/transformer.onnx")[kind] > 5
    model = load(str(tmp_path / "out"))
    assert model.backend == "onnx"
    assert getattr(model.network, "one_by_one") == (text == "form=dynamic")  # noqa: B009
    assert 0 < relative(sampled(model)[0], full) < error
    assert facts["verdict"]["psnr"] > 20 and facts["target"].startswith("onnx")
    assert not list((tmp_path / "out/transformer").glob("*.safetensors"))
    said = json.loads((tmp_path / "out/quantize.json").read_text())
    assert said["bytes"] == facts["bytes"] > 0
    card = {p.key: p.value for p in onnx.load(tmp_path / "out/transformer.onnx").metadata_props}
    assert json.loads(card["dit.target"]) == facts["target"] and "dit.verdict" in card
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_int4_runs_the_codes_that_the_scheme_chose(folders, tmp_path):
    """The graph computes what PyTorch computes with the same packed layers."""
    scheme = "rtn:bits=4,group=16,clip=mse"
    make(folders("pixart"), tmp_path / "graph", "form=int4", scheme, EvalConfig(prompts=0))
    plain = spec.parse("formats", "folder")
    wanted = packed_folder.QuantizeConfig(tmp_path / "torch", plain.scheme(scheme))
    plain.make(resolve(str(folders("pixart"))), wanted, EvalConfig(prompts=0), lambda event: None)
    theirs = sampled(load(str(tmp_path / "torch"), device="cpu"))[0]
    assert relative(sampled(load(str(tmp_path / "graph")))[0], theirs) < 1e-4


def test_static_keeps_sensitive_layers_and_symmetry(folders, tmp_path):
    make(folders("pixart"), tmp_path / "out", "form=static,provider=tensorrt", None)
    graph = onnx.load(tmp_path / "out/transformer.onnx").graph

    zeros = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer if i.name.endswith("zero_point")}
    assert zeros and all(value.dtype == np.int8 and not value.any() for value in zeros.values())


def test_the_int8_graph_is_that_of_the_exporter(exports, tmp_path):
    """A folder that has graphs keeps them: the file is the one that built-in models ship."""
    folder = exports("pixart")
    make(folder, tmp_path / "out", "form=dynamic", None, EvalConfig(prompts=0))
    int8.quantize(folder / "transformer.onnx", tmp_path / "again.onnx")
    made, again = (onnx.load(tmp_path / name) for name in ("out/transformer.onnx", "again.onnx"))
    assert made.graph.SerializeToString() == again.graph.SerializeToString()


def test_the_forecast_is_about_the_size(folders, tmp_path):
    target = spec.parse("formats", "onnx:form=fp16")
    wanted = packed_folder.QuantizeConfig(Path("."), target.scheme(None))
    plan = target.plan(resolve(str(folders("pixart"))), wanted, True)
    facts = make(folders("pixart"), tmp_path / "out", "form=fp16", None, EvalConfig(prompts=0))
    assert plan.nbytes < facts["bytes"] < plan.nbytes + 120_000  # nodes of a tiny graph weigh more


@pytest.mark.parametrize("family", ["flux"])
def test_families(family, folders, tmp_path):
    make(folders(family), tmp_path / "out", "form=dynamic", None, EvalConfig(prompts=0))
    full = sampled(load(str(folders(family)), device="cpu"))[0]
    assert relative(sampled(load(str(tmp_path / "out")))[0], full) < 0.2


def test_what_is_refused_before_the_work(folders, tmp_path):
    def target(text: str, scheme: str | None = None):
        return spec.parse("formats", text).scheme(scheme)

    for text in ("form=dynamic,provider=cuda", "form=dynamic,provider=tensorrt", "form=int4,provider=tensorrt"):
        with pytest.raises(UnsupportedError, match="cannot run on"):
            target(f"onnx:{text}")
    with pytest.raises(UsageError, match="a scheme of its own"):
        target("onnx:form=static", "rtn")
    for scheme in ("vq4dit", "fp4", "rtn:bits=3", "rtn:bits=4,zero=true", "rtn:bits=4,group=48"):
        with pytest.raises(UnsupportedError, match="cannot hold"):
            target("onnx:form=int4", scheme)
    dynamic = spec.parse("formats", "onnx")
    kept = packed_folder.QuantizeConfig(Path("."), dynamic.scheme(None), keep=("ff",))
    with pytest.raises(UnsupportedError, match="takes every product"):
        dynamic.plan(resolve(str(folders("pixart"))), kept, True)
    make(folders("pixart"), tmp_path / "out", "form=fp16", None, EvalConfig(prompts=0))
    with pytest.raises(UnsupportedError, match="a graph in few bits; use the plain model"):
        load(str(tmp_path / "out"), backend="torch")
    with pytest.raises(InputError, match="exists; add --overwrite"):
        make(folders("pixart"), tmp_path / "out", "form=fp16", None, EvalConfig(prompts=0))
