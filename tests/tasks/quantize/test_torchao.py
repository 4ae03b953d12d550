"""``--target torchao``: the same codes through torchao where it is installed, refused elsewhere."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.models.backends import torchao_kernels
from dit_tools.models.loading.load import load
from dit_tools.models.loading.resolve import resolve
from dit_tools.nn.packed import PackedLinear
from dit_tools.nn.packed_layout import Layout
from dit_tools.tasks.quantize import packed_folder
from dit_tools.tasks.quantize.quantize import EvalConfig
from tests.support.exports import relative, sampled

CONFIG = "transformer/config.json"
TRIAL = EvalConfig(prompts=0, calibration=1, steps=2, device="cpu")


def make(source: Path, out: Path, text: str, scheme: str | None = None):
    target = spec.parse("formats", text)
    wanted = packed_folder.QuantizeConfig(out, target.scheme(scheme))
    return target.make(resolve(str(source)), wanted, TRIAL, lambda event: None)


@pytest.mark.parametrize("form", ["dynamic", "weights"])
def test_the_same_numbers_or_a_refusal(form: str, folders, tmp_path) -> None:
    """With torchao: what our own kernels give. Without: one line, and nothing is written."""
    scheme = {"dynamic": "rtn:act=8", "weights": "rtn"}[form]
    if find_spec("torchao") is None:
        with pytest.raises(UnsupportedError, match="--target torchao: it cannot be used") as caught:
            make(folders("pixart"), tmp_path / "out", f"torchao:form={form}")
        assert "pip install" in caught.value.hint and list(tmp_path.iterdir()) == []
        return
    facts = make(folders("pixart"), tmp_path / "out", f"torchao:form={form}")
    make(folders("pixart"), tmp_path / "ours", "folder", scheme)
    assert facts["target"] == spec.format(spec.parse("formats", f"torchao:form={form}"))
    names = [f"{name}/transformer/diffusion_pytorch_model.safetensors" for name in ("out", "ours")]
    theirs, ours = (load(str(tmp_path / name), device="cpu") for name in ("out", "ours"))
    assert (tmp_path / names[0]).stat().st_size == (tmp_path / names[1]).stat().st_size
    layer = theirs.network.module.transformer_blocks[0].ff.net[2]
    packed = ours.network.module.transformer_blocks[0].ff.net[2]
    assert type(layer.weight).__module__.startswith("torchao")
    assert isinstance(packed, PackedLinear)
    assert torch.allclose(layer.weight.dequantize(), packed.weight, atol=1e-6)
    x = torch.randn(3, 5, layer.in_features, generator=torch.Generator().manual_seed(0))
    exact = packed(x)
    if form == "dynamic":  # torchao's activations go from -128 to 127, ours from -127
        step = x.abs().amax(-1, keepdim=True) / 127.5
        exact = (x / step).round().clamp(-128, 127) * step @ packed.weight.T + packed.bias
    rough = 0.01 if form == "dynamic" else 1e-4  # some kernels scale in bfloat16
    assert torch.allclose(layer(x), exact, rtol=0.0, atol=rough * float(exact.std()))
    assert relative(sampled(theirs)[0], sampled(ours)[0]) < 0.03


def test_a_folder_for_torchao_without_it(folders, tmp_path, monkeypatch) -> None:
    """The folder's layers are those of --target folder; who runs them is asked for by name."""
    make(folders("pixart"), tmp_path / "out", "folder", "rtn:act=8")
    path = tmp_path / "out" / CONFIG
    config = json.loads(path.read_text())
    config["quantization_config"]["kernels"] = "torchao"
    path.write_text(json.dumps(config))
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(UnsupportedError, match="it cannot be used") as caught:
        load(str(tmp_path / "out"), device="cpu")
    assert "\n" not in str(caught.value) and "pip install" in caught.value.hint


@pytest.mark.parametrize("device", ["mps", "xpu", "mps:0"])
def test_devices_that_it_does_not_run_on(device: str) -> None:
    torchao_kernels.check_device("cuda:1")
    torchao_kernels.check_device("cpu")
    with pytest.raises(UnsupportedError, match="run on cpu and cuda"):
        torchao_kernels.check_device(device)


def test_what_it_cannot_hold() -> None:
    for text, scheme in (
        ("torchao", "rtn:bits=4"),
        ("torchao", "rtn"),
        ("torchao", "vidit-q"),
        ("torchao:form=weights", "rtn:act=8"),
        ("torchao", "fp8"),
    ):
        with pytest.raises(UnsupportedError, match="cannot run it; use bits=8"):
            spec.parse("formats", text).scheme(scheme)
    learned = spec.parse("formats", "torchao:form=weights").scheme("q-diffusion:bits=8")
    assert learned.bits == 8
    assert torchao_kernels.fits(Layout(64, 64, act=8))
    assert not torchao_kernels.fits(Layout(64, 60, act=8)) and torchao_kernels.fits(Layout(64, 60))
