"""LoRA files of every tool and kind: exactly as peft applies them, or refused by name."""

from __future__ import annotations

import importlib
import json
import logging
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors.torch import save_file

from dit_tools.core.errors import ModelError, UnsupportedError
from dit_tools.models.families import families
from dit_tools.models.loading import lora
from dit_tools.models.loading.lora import Lora
from tests.support import loras, pixart

FAMILIES = ("dit", "flux", "lumina2", "pixart", "qwenimage", "sana", "sd3", "zimage")
LORA = {"r": 3, "lora_alpha": 5}
CONFIGS = {
    "lora": peft.LoraConfig(**LORA),
    "rslora": peft.LoraConfig(**LORA, use_rslora=True),
    "dora": peft.LoraConfig(**LORA, use_dora=True),
    "bias": peft.LoraConfig(**LORA, lora_bias=True),
    "patterns": peft.LoraConfig(
        **LORA, rank_pattern={"to_v": 2}, alpha_pattern={r"^transformer_blocks\.0\.attn1\.to_q": 9, "attn2.to_v": 7}
    ),
    "loha": peft.LoHaConfig(r=3, alpha=5),
    "lokr": peft.LoKrConfig(r=3, alpha=5),
    "lokr-whole": peft.LoKrConfig(r=8, alpha=5, decompose_both=True),
}


def trained(network: Any, config: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """``network`` inside peft with random weights, and what peft saves of it."""
    config.target_modules = ["to_q", "to_v"]
    model = peft.get_peft_model(network, config)
    draw = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if any(word in name for word in ("lora_", "hada_", "lokr_")):
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.data = parameter.data + noise if "magnitude" in name else 0.3 * noise
    return model, {k: v.contiguous() for k, v in get_peft_model_state_dict(model).items()}


def output(transformer: Any) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 5, 16, generator=draw)
    extra = {"resolution": None, "aspect_ratio": None}
    with torch.no_grad():
        return transformer(x, text, torch.tensor([10.0, 500.0]), added_cond_kwargs=extra, return_dict=False)[0]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_that_peft_saved_acts_as_in_peft(kind: str, tmp_path: Path) -> None:
    pipe = pixart.pipeline()
    plain = output(pipe.transformer)
    model, _ = trained(pixart.pipeline().transformer, CONFIGS[kind])
    model.save_pretrained(tmp_path)
    done = lora.apply(pipe, [Lora(tmp_path, 1.0)])
    expected = output(model.base_model.model)
    assert (expected - plain).abs().max() > 1e-2
    torch.testing.assert_close(output(pipe.transformer), expected, atol=2e-5, rtol=1e-4)
    assert done[0]["unmatched"] == 0 and done[0]["keys"] > done[0]["layers"] > 0


@pytest.mark.parametrize("kind", ["lora", "dora", "loha"])
def test_strength_scales_as_peft_scales(kind: str, tmp_path: Path) -> None:
    pipe = pixart.pipeline()
    model, _ = trained(pixart.pipeline().transformer, CONFIGS[kind])
    model.save_pretrained(tmp_path)
    for layer in model.modules():
        if isinstance(layer, peft.tuners.tuners_utils.BaseTunerLayer):
            layer.set_scale("default", 0.4)
    lora.apply(pipe, [Lora(tmp_path, 0.4)])
    torch.testing.assert_close(output(pipe.transformer), output(model.base_model.model), atol=2e-5, rtol=1e-4)
    silent = pixart.pipeline()
    plain = output(silent.transformer)
    lora.apply(silent, [Lora(tmp_path, 0.0)])
    assert torch.equal(output(silent.transformer), plain)


DIALECTS = {
    "peft": lambda layer, half: f"base_model.model.{layer}.lora_{half}.weight",
    "diffusers": lambda layer, half: f"transformer.{layer}.lora_{half}.weight",
    "kohya": lambda layer, half: f"lora_unet_{layer.replace('.', '_')}.lora_{_side(half)}.weight",
    "onetrainer": lambda layer, half: f"lora_transformer_{layer.replace('.', '_')}.lora_{_side(half)}.weight",
    "lycoris": lambda layer, half: f"lycoris_{layer.replace('.', '_')}.lora_{_side(half)}.weight",
    "comfyui": lambda layer, half: f"diffusion_model.{layer}.lora_{half}.weight",
    "down-and-up": lambda layer, half: f"transformer.{layer}.lora_{_side(half)}.weight",
}


def _side(half: str) -> str:
    return {"A": "down", "B": "up"}[half]


def some_layers(network: Any) -> dict[str, Any]:
    found = {k: m for k, m in network.named_modules() if isinstance(m, torch.nn.Linear) and k.endswith("to_q")}
    return dict(list(found.items())[:2])


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_every_dialect_at_alpha_over_rank(family: str, dialect: str, tmp_path: Path) -> None:
    pipe = importlib.import_module(f"tests.support.{family}").pipeline()
    chosen, draw = some_layers(pipe.transformer), torch.Generator().manual_seed(0)
    made, expected = {}, {}
    for layer, module in chosen.items():
        a = torch.randn(2, module.in_features, generator=draw)
        b = torch.randn(module.out_features, 2, generator=draw)
        made |= {DIALECTS[dialect](layer, "A"): a, DIALECTS[dialect](layer, "B"): b}
        made[DIALECTS[dialect](layer, "A").partition(".lora_")[0] + ".alpha"] = torch.tensor(3.0)
        x = torch.randn(2, module.in_features, generator=draw)
        expected[layer] = x, module(x) + 1.5 * x @ a.T @ b.T * 0.5
    save_file(made, tmp_path / "x.safetensors")
    done = lora.apply(pipe, [Lora(tmp_path / "x.safetensors", 0.5)])
    assert (done[0]["layers"], done[0]["keys"], done[0]["unmatched"]) == (len(chosen), 3 * len(chosen), 0)
    for layer, (x, wanted) in expected.items():
        torch.testing.assert_close(pipe.transformer.get_submodule(layer)(x), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "qwenimage"])
@pytest.mark.parametrize("flat", [False, True], ids=["dots", "flat"])
def test_original_names_reach_the_layers_that_diffusers_makes_of_them(family: str, flat: bool, tmp_path: Path) -> None:
    """A fused layer's rows are those of its parts in order."""
    pipe = importlib.import_module(f"tests.support.{family}").pipeline()
    names = dict(pipe.transformer.named_modules())
    tried = 0
    for original, targets in families()[family].lora.items():
        filled = [target.rstrip("~").replace("{}", "0") for target in targets]
        if not all(target in names for target in filled) or any(target.endswith("~") for target in targets):
            continue
        layers = [names[target] for target in filled]
        a = torch.randn(2, layers[0].in_features)
        b = torch.randn(sum(layer.out_features for layer in layers), 2)
        stem = original.replace("{}", "0")
        stem = f"lora_unet_{stem.replace('.', '_')}" if flat else f"diffusion_model.{stem}"
        path = tmp_path / f"{tried}.safetensors"
        save_file({f"{stem}.lora_down.weight": a, f"{stem}.lora_up.weight": b}, path)
        x = torch.randn(3, layers[0].in_features)
        before = torch.cat([layer(x) for layer in layers], 1)
        done = lora.apply(pipe, [Lora(path, 1.0)])
        assert done[0]["layers"] == len(layers) and done[0]["unmatched"] == 0
        after = torch.cat([layer(x) for layer in layers], 1)
        torch.testing.assert_close(after - before, x @ a.T @ b.T, atol=1e-4, rtol=1e-4)
        tried += 1
    assert tried >= 4


def test_differences_and_biases_are_added(tmp_path: Path) -> None:
    pipe = pixart.pipeline()
    layer = pipe.transformer.transformer_blocks[0].attn1.to_q
    difference, bias = torch.randn(layer.weight.shape), torch.randn(layer.out_features)
    name = "diffusion_model.transformer_blocks.0.attn1.to_q"
    save_file({f"{name}.diff": difference, f"{name}.diff_b": bias}, tmp_path / "x.safetensors")
    x = torch.randn(4, layer.in_features)
    wanted = layer(x) + 0.5 * (x @ difference.T + bias)
    lora.apply(pipe, [Lora(tmp_path / "x.safetensors", 0.5)])
    torch.testing.assert_close(layer(x), wanted, atol=1e-5, rtol=1e-4)


def test_keys_that_fit_nothing_are_told_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = pixart.pipeline()
    made = loras.tensors(pipe.transformer, prefix="transformer.")
    strange = {f"transformer.other.{i}.to_q.lora_A.weight": torch.ones(2, 4) for i in range(4)}
    save_file({**made, **strange, "step": torch.ones(1)}, tmp_path / "x.safetensors")
    with caplog.at_level(logging.WARNING, "dit_tools"):
        done = lora.apply(pipe, [Lora(tmp_path / "x.safetensors", 1.0)])
    assert (done[0]["keys"], done[0]["unmatched"]) == (len(made) + 5, 5)
    (line,) = caplog.messages
    assert f"5 of {len(made) + 5} keys of {tmp_path / 'x.safetensors'} fit nothing: step, transformer.other.0" in line


@pytest.mark.parametrize(
    "key", ["lora_mid.weight", "hada_t1", "lokr_t2", "lora_A.bias", "oft_blocks", "w_norm", "lora_embedding_A"]
)
def test_what_cannot_be_applied_exactly_is_refused_by_name(key: str, tmp_path: Path) -> None:
    pipe = pixart.pipeline()
    made = loras.tensors(pipe.transformer, prefix="transformer.")
    made[f"transformer.transformer_blocks.0.attn1.to_q.{key}"] = torch.ones(2, 2)
    save_file(made, tmp_path / "x.safetensors")
    with pytest.raises(UnsupportedError, match=key):
        lora.apply(pipe, [Lora(tmp_path / "x.safetensors", 1.0)])


@pytest.mark.parametrize(
    ("config", "message"),
    [({"peft_type": "OFT"}, "OFT"), ({"init_lora_weights": "pissa"}, "pissa"), ({"fan_in_fan_out": True}, "fan_in")],
)
def test_configurations_that_change_more_are_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    pipe = pixart.pipeline()
    loras.write(tmp_path, pipe.transformer, "adapter_model.safetensors", prefix="base_model.model.")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=message):
        lora.apply(pipe, [Lora(tmp_path, 1.0)])


def test_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    pipe = pixart.pipeline()
    save_file(
        {"transformer.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 24)}, tmp_path / "x.safetensors"
    )
    with pytest.raises(ModelError, match="incomplete"):
        lora.apply(pipe, [Lora(tmp_path / "x.safetensors", 1.0)])


def test_metadata_of_diffusers_says_alpha(tmp_path: Path) -> None:
    pipe, reference = pixart.pipeline(), pixart.pipeline()
    made = loras.tensors(pipe.transformer, prefix="transformer.")
    table = {"transformer.r": loras.RANK, "transformer.lora_alpha": 6, "transformer.use_rslora": True}
    save_file(made, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(table), "format": "pt"})
    save_file(made, tmp_path / "y.safetensors")
    lora.apply(pipe, [Lora(tmp_path / "x.safetensors", 1.0)])
    lora.apply(reference, [Lora(tmp_path / "y.safetensors", 6 / loras.RANK**0.5)])
    torch.testing.assert_close(output(pipe.transformer), output(reference.transformer), atol=1e-5, rtol=1e-5)
