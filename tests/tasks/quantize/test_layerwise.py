"""Calibration without the network in memory finds what calibration with it finds."""

from __future__ import annotations

import pytest
import torch

from dit_tools.core import spec
from dit_tools.models.loading.load import load
from dit_tools.models.loading.resolve import resolve
from dit_tools.tasks.quantize import activation_stats, layerwise, packed_folder, quantize
from dit_tools.tasks.quantize.layers import INSIDE
from tests.support.loading import WEIGHTS

FAMILIES = ("pixart", "sd3", "flux", "lumina2", "dit", "sana")


def layers_of(folder, text: str):
    wanted = packed_folder.QuantizeConfig(folder, spec.parse("quantization", text))
    return packed_folder.preflight(resolve(str(folder)), wanted, dry=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_see_the_same(family: str, folders, monkeypatch) -> None:
    """Block by block and layer by layer, bit for bit, whatever the family's blocks return."""
    monkeypatch.setattr(layerwise, "ROOM", 0.0 if family == "pixart" else 1.0)
    folder = folders(family)
    layers = layers_of(folder, "q-diffusion:bits=8")
    full = load(str(folder), device="cpu", dtype="float32")
    prompts = ("1", "207") if family == "dit" else ("a", "b c")
    theirs = activation_stats.observe(full, layers, "ntdc", prompts, 2)
    model = layerwise.load_layerwise(resolve(str(folder)), layers)
    ours = layerwise.Streamed(model, layers, "ntdc", prompts, 2)
    assert set(theirs) <= set(ours)
    for name in (layer.name for layer in layers.linear if layer.name in theirs):
        if "norm1.emb." in name:
            continue  # DiT calls its first block's embedding once more at the end
        for key in ("moments", "peak", "half", "sample", "others"):
            assert torch.equal(getattr(ours[name], key), getattr(theirs[name], key)), (name, key)
    assert ours.get("no.such.layer") is None


def test_layers_may_be_asked_for_in_any_order(folders) -> None:
    layers = layers_of(folders("pixart"), "vidit-q")
    model = layerwise.load_layerwise(resolve(str(folders("pixart"))), layers)
    names = [layer.name for layer in activation_stats.stats_wanted(layers) if INSIDE.match(layer.name)]
    forwards, backwards = (layerwise.Streamed(model, layers, "trajectory", ("a",), 2) for _ in range(2))
    found = {name: forwards[name] for name in names}
    for name in reversed(names):
        assert torch.equal(backwards[name].sample, found[name].sample)
    assert all(seen.moments is None for seen in found.values())  # nobody reads them


def test_no_weight_stays(folders) -> None:
    """Before, between and after calls a linear layer holds one number."""
    layers = layers_of(folders("flux"), "q-diffusion:bits=8")
    model = layerwise.load_layerwise(resolve(str(folders("flux"))), layers)
    root = model.network.module
    seen = layerwise.Streamed(model, layers, "trajectory", ("a",), 1)
    largest = 0

    def look(module, inputs) -> None:
        nonlocal largest
        held = sum(root.get_submodule(layer.name).weight.untyped_storage().nbytes() for layer in layers.linear)
        largest = max(largest, held)

    for layer in layers.linear:
        root.get_submodule(layer.name).register_forward_pre_hook(look)
    for name in seen:
        seen.get(name)
    assert 0 < largest <= 4 * (layers.largest + len(layers.linear))


@pytest.mark.parametrize("text", ["ptq4dm", "q-diffusion:group=8,iterations=2"])
def test_the_file_is_the_same(text: str, folders, tmp_path, monkeypatch) -> None:
    source, trial = resolve(str(folders("pixart"))), quantize.EvalConfig(0, 2, 2, "cpu")

    def go(name: str) -> bytes:
        wanted = packed_folder.QuantizeConfig(tmp_path / name, spec.parse("quantization", text))
        quantize.quantize(source, wanted, trial)
        return (tmp_path / name / WEIGHTS).read_bytes()

    assert quantize.calibrates_layerwise(spec.parse("quantization", text), trial)
    streamed = go("streamed")
    monkeypatch.setattr(quantize, "calibrates_layerwise", lambda scheme, trial: False)
    assert go("whole") == streamed


def test_what_needs_the_network_whole_does_not_stream() -> None:
    def streams(text: str, **fields) -> bool:
        trial = quantize.EvalConfig(**{"prompts": 0, "device": "cpu"} | fields)
        return quantize.calibrates_layerwise(spec.parse("quantization", text), trial)

    assert streams("vidit-q") and streams("ptq4dm") and streams("vq4dit")
    assert not streams("rtn")
    assert not streams("quest")
    assert not streams("vidit-q", prompts=2)
    assert not streams("vidit-q", max_loss=1.0)
