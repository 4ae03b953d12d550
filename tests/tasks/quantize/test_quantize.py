"""Calibration, sensitivity and verdict on the built-in model and on tiny ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import MemoryLimitError, ModelError, UnsupportedError, UsageError
from dit_tools.models.loading.load import load
from dit_tools.models.loading.resolve import resolve
from dit_tools.tasks.quantize import (
    activation_stats,
    bit_allocation,
    denoising_error,
    finetune,
    packed_folder,
    quality_report,
)
from dit_tools.tasks.quantize.quantize import EvalConfig, calibration_prompts, quantize


def wanted(out, text: str = "rtn", **fields) -> packed_folder.QuantizeConfig:
    return packed_folder.QuantizeConfig(out, spec.parse("quantization", text), **fields)


def layers_of(source, text: str):
    return packed_folder.preflight(resolve(str(source)), wanted(source, text), dry=True)


# bits per layer ---------------------------------------------------------------------------------


def test_bits_are_chosen_within_the_budget() -> None:
    sizes = {8: 80, 4: 40, 2: 20}
    layers = {
        "tough": (sizes, {8: 0.001, 4: 0.01, 2: 0.1}),
        "tender": (sizes, {8: 0.01, 4: 1.0, 2: 10.0}),
        "large": ({8: 800, 4: 400, 2: 200}, {8: 0.001, 4: 0.05, 2: 0.9}),
    }
    assert bit_allocation.choose_bits(layers, 0.0) == {"tough": 8, "tender": 8, "large": 8}
    assert bit_allocation.choose_bits(layers, 0.08) == {"tough": 4, "tender": 8, "large": 4}
    assert bit_allocation.choose_bits(layers, 100.0) == {"tough": 2, "tender": 2, "large": 2}
    for budget in (0.02, 0.2, 1.2, 2.0):
        chosen = bit_allocation.choose_bits(layers, budget)
        assert sum(layers[name][1][bits] for name, bits in chosen.items()) <= budget


@pytest.mark.parametrize("text, value", [("0.5dB", 0.5), ("2", 2.0), (" 1.5 DB", 1.5)])
def test_a_limit_is_decibels(text: str, value: float) -> None:
    assert bit_allocation.limit_of(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1dB", "nan", "inf", "1 percent"])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(UsageError, match="--max-loss"):
        bit_allocation.limit_of(text)


def test_packed_layers_are_put_back(folders) -> None:
    model = load(str(folders("pixart")), device="cpu")
    layers = layers_of(folders("pixart"), "rtn:bits=2,group=8")
    before = {name: id(module) for name, module in model.network.module.named_modules()}
    chosen = {layer.name: (layer, layer.packer) for layer in layers.linear if layer.layout}
    with pytest.raises(ZeroDivisionError), bit_allocation.run_packed(model, chosen, {}):
        inside = {name: id(module) for name, module in model.network.module.named_modules()}
        assert sum(inside[name] != before[name] for name in chosen) == len(chosen)
        raise ZeroDivisionError
    assert {n: id(m) for n, m in model.network.module.named_modules()} == before


# calibration ------------------------------------------------------------------------------------


def test_moments_are_those_of_the_inputs(folders) -> None:
    model = load(str(folders("pixart")), device="cpu")
    layers = layers_of(folders("pixart"), "q-diffusion:group=8")
    name = "transformer_blocks.1.ff.net.0.proj"
    fed = []
    hook = model.network.module.get_submodule(name).register_forward_pre_hook(
        lambda module, inputs: fed.append(inputs[0].double().flatten(0, -2))
    )
    seen = activation_stats.observe(model, layers, "trajectory", ("a", "b"), 2)
    hook.remove()
    x = torch.cat(fed)
    assert torch.allclose(seen[name].moments.double(), x.T @ x / len(x), atol=1e-4)
    assert torch.allclose(seen[name].peak.double(), x.abs().amax(0), atol=1e-6)
    assert seen.keys() == {la.name for la in layers.linear if la.why == "plain"}
    other = activation_stats.observe(model, layers, "random", ("a",), 2)
    assert not torch.allclose(other[name].moments, seen[name].moments, rtol=0.01)
    hooks = [m for m in model.network.module.modules() if m._forward_pre_hooks]
    assert not hooks


def test_skewed_times_weigh_clean_steps_more_and_move_the_moments(folders) -> None:
    times = [1 - i / 20 for i in range(20)]
    weights = activation_stats.skew_weights(times)
    assert np.mean(weights) == pytest.approx(1)
    assert sum(weights[10:]) > 1.1 * sum(weights[:10])
    model = load(str(folders("pixart")), device="cpu")
    layers = layers_of(folders("pixart"), "q-diffusion:group=8,inputs=ntdc")
    ours, plain = (activation_stats.observe(model, layers, how, ("a",), 4) for how in ("ntdc", "trajectory"))
    name = "transformer_blocks.1.ff.net.0.proj"
    assert not torch.allclose(ours[name].moments, plain[name].moments, rtol=0.01)
    assert ours[name].sample.shape[1] == ours[name].moments.shape[0]


def test_fine_tuning_brings_the_output_nearer(folders, tmp_path) -> None:
    """That of the written model, on the calls that it was tuned on."""
    source, trial = resolve(str(folders("pixart"))), EvalConfig(0, 1, 2, "cpu")
    events = []
    text = "quest:group=8,calls=4,epochs=8,rate=0.02"
    quantize(source, wanted(tmp_path / "out", text), trial, events.append)
    errors = [event["error"] for event in events if event["type"] == "tuning"]
    assert len(errors) == 9 and errors[-1] < 0.8 * errors[0]
    assert errors == [event["unseen"] for event in events if event["type"] == "tuning"]
    quantize(source, wanted(tmp_path / "plain", "quest:group=8,epochs=0"), trial)
    full = load(str(folders("pixart")), device="cpu")
    calls, _ = finetune._recorded(full, calibration_prompts(full, trial), trial.steps, 4)
    ours, theirs = (
        finetune._error(load(str(tmp_path / name), device="cpu").network.module, calls) for name in ("out", "plain")
    )
    assert ours < 0.9 * theirs


def test_fine_tuning_is_judged_on_prompts_that_it_does_not_see(folders) -> None:
    """The weights that come back are those of the epoch that served them best."""
    model = load(str(folders("pixart")), device="cpu")
    layers = layers_of(folders("pixart"), "quest:group=8,calls=4,epochs=4,rate=0.5")
    prompts = ("a", "b", "c")
    calls, others = finetune._recorded(model, prompts, 2, 4)
    seen = {id(call[2]) for call in calls}
    assert others and not seen & {id(call[2]) for call in others}
    found = activation_stats.observe(model, layers, "trajectory", prompts, 2)
    events = []
    tuned = finetune.finetune_layers(model, layers, found, prompts, 2, events.append)
    unseen = [event["unseen"] for event in events]
    assert [event["error"] for event in events] != unseen
    chosen = {la.name: (la, la.packer) for la in layers.linear if la.layout and la.packer.tuning}
    with bit_allocation.run_packed(model, chosen, tuned):
        now = finetune._error(model.network.module, others)
    assert now == pytest.approx(min(unseen), rel=0.02)  # scales are halves there


def test_nan_in_calibration_is_one_line(folders) -> None:
    model = load(str(folders("pixart")), device="cpu")
    layers = layers_of(folders("pixart"), "q-diffusion:group=8")
    with torch.no_grad():
        model.network.module.transformer_blocks[0].attn1.to_q.weight[:] = math.nan
    with pytest.raises(ModelError, match="NaN"):
        activation_stats.observe(model, layers, "random", ("a",), 1)


def test_calibration_that_no_memory_holds(folders, monkeypatch) -> None:
    layers = layers_of(folders("pixart"), "vq4dit")
    activation_stats.check_memory(layers)
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    with pytest.raises(MemoryLimitError, match="calibration needs"):
        activation_stats.check_memory(layers)


# the whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["vidit-q", "vq4dit:iterations=5", "svd:rank=2"])
def test_calibrated_schemes_end_in_folders_that_run(text: str, folders, tmp_path) -> None:
    source = resolve(str(folders("pixart")))
    facts = quantize(source, wanted(tmp_path / "out", text), EvalConfig(1, 1, 2, "cpu"))
    assert facts["verdict"]["psnr"] > 10 and facts["scheme"].startswith(text.partition(":")[0])
    packed = load(str(tmp_path / "out"), device="cpu")
    full = load(str(folders("pixart")), device="cpu")
    found = quality_report.compare_networks(full, packed, facts["verdict"]["prompts"], 2)
    assert found.to_json()["psnr"] == facts["verdict"]["psnr"]


def test_equal_networks_lose_nothing(folders) -> None:
    model = load(str(folders("dit")), device="cpu")
    found = quality_report.compare_networks(model, model, ("207",), 2)
    assert found.psnr == math.inf and found.loss == 0 and found.to_json()["psnr"] is None
    assert json.dumps(found.to_json(), allow_nan=False)


def test_a_scheme_without_bits_has_none_to_choose(folders, tmp_path) -> None:
    source = resolve(str(folders("pixart")))
    with pytest.raises(UnsupportedError, match="--max-loss: --scheme fp8"):
        quantize(source, wanted(tmp_path / "out", "fp8"), EvalConfig(max_loss=1.0))


def test_a_type_that_the_device_has_not(folders, tmp_path, monkeypatch) -> None:
    """Refused before anything is loaded; the check is the command's, the device is a stand-in."""
    from dit_tools.models.loading import torch_loader

    monkeypatch.setattr(torch_loader, "pick_device", lambda wish: "mps")
    monkeypatch.setattr(torch_loader, "load_torch", None)
    source = resolve(str(folders("pixart")))
    with pytest.raises(UnsupportedError, match="--scheme fp8: mps has no floating point"):
        quantize(source, wanted(tmp_path / "out", "fp8"), EvalConfig(2, 1, 2, "mps"))
    assert list(tmp_path.iterdir()) == []


KEEP = ("ff", "attn2", "caption", r"blocks\.[1-9]")


def test_the_built_in_model_by_sensitivity(tmp_path) -> None:
    """Fewer bytes than eight bits, and no more loss than allowed; tough layers get fewer bits."""
    source = resolve("emoji")
    trial = EvalConfig(prompts=1, calibration=1, steps=2, device="cpu", max_loss=0.3)
    events = []
    facts = quantize(source, wanted(tmp_path / "out", "rtn", keep=KEEP), trial, events.append)
    assert facts["verdict"]["loss"] < 2.0 and facts["verdict"]["psnr"] > 15
    plain = packed_folder.preflight(source, wanted(tmp_path / "new", "rtn", keep=KEEP))
    assert facts["bytes"] < plain.nbytes - 20_000
    layouts = {row["layout"] for row in facts["layers"] if row["why"] == "plain"}
    assert len(layouts) > 1
    errors = [e["errors"] for e in events if e["type"] == "sensitivity"]
    assert np.mean([e[2] > e[4] for e in errors]) > 0.9
    model = load(str(tmp_path / "out"), device="cpu")
    assert model.alpha and model.defaults.size == 128  # the facts of the built-in model go along
    assert len(list(denoising_error.sample_prompts(model, ("a red apple",), 2))[0].pixels) == 4
