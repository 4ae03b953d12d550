"""Single files: a transformer alone on the other parts of a base model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from dit_tools.core.errors import ModelError, UnsupportedError, UsageError
from dit_tools.models.loading import single_file
from dit_tools.models.loading.load import load
from tests.support.loading import FAMILIES, WEIGHTS, copy, refused


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_of_a_transformer_file_is_told_from_its_names(family):
    names = FAMILIES[family].pipeline().transformer.state_dict()
    found = single_file.detect(names)
    assert found is not None and found.name == family


def test_names_of_the_first_releases_are_known_too():
    for name, family in (
        ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "flux"),
        ("joint_blocks.0.context_block.adaLN_modulation.1.bias", "sd3"),
        ("t_block.1.weight", "pixart"),
        ("first_stage_model.decoder.conv_in.weight", None),
    ):
        found = single_file.detect([name])
        assert (found.name if found else None) == family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transformer_file_replaces_the_bases_own(family, folders, tmp_path):
    tensors = load_file(folders(family) / WEIGHTS)
    tuned = {k: t * 1.25 if t.is_floating_point() else t for k, t in tensors.items()}
    path = tmp_path / "tuned.safetensors"
    save_file(tuned, path)
    base = copy(folders(family), tmp_path / "base")
    (base / WEIGHTS).unlink()  # the base's own weights are not needed
    model = load(str(path), base=str(base), device="cpu")
    assert (model.name, model.family.name) == ("tuned", family)
    for key, tensor in model.network.module.state_dict().items():
        assert torch.equal(tensor, tuned[key])


def test_a_file_in_the_original_names_is_converted(folders, tmp_path):
    """SD3's own names for what the first and the last layers are called in diffusers."""
    tensors = load_file(folders("sd3") / WEIGHTS)
    original = {}
    for key, tensor in tensors.items():
        renamed = _sd3_original(key, tensor, tensors)
        original |= {f"model.diffusion_model.{k}": t.clone() for k, t in renamed.items()}
    path = tmp_path / "original.safetensors"
    save_file(original, path)
    model = load(str(path), base=str(folders("sd3")), device="cpu")
    for key, tensor in model.network.module.state_dict().items():
        assert torch.equal(tensor, tensors[key]), key


TOP = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
QKV = {
    "attn.to_q": ("x_block.attn", "attn.to_{}"),
    "attn2.to_q": ("x_block.attn2", "attn2.to_{}"),
    "attn.add_q_proj": ("context_block.attn", "attn.add_{}_proj"),
}


def _sd3_original(key, tensor, tensors):
    """The tensors that one of diffusers' names stands for in the first release of SD3."""
    if not key.startswith("transformer_blocks."):
        stem, _, leaf = (key, "", "") if key in TOP else key.rpartition(".")
        if stem == "norm_out.linear":
            tensor = torch.cat(tensor.chunk(2)[::-1])  # scale and shift change places
        return {TOP[stem] + (f".{leaf}" if leaf else ""): tensor}
    _, number, rest = key.split(".", 2)
    stem, _, leaf = rest.rpartition(".")
    if stem in QKV:
        name, pattern = QKV[stem]
        parts = [tensors[f"transformer_blocks.{number}.{pattern.format(letter)}.{leaf}"] for letter in "qkv"]
        return {f"joint_blocks.{number}.{name}.qkv.{leaf}": torch.cat(parts)}
    if stem not in BLOCK:
        return {}  # k and v, which went with q
    last = int(number) == 2 and stem == "norm1_context.linear"  # AdaLayerNormContinuous swaps too
    value = torch.cat(tensor.chunk(2)[::-1]) if last else tensor
    return {f"joint_blocks.{number}.{BLOCK[stem]}.{leaf}": value}


def test_a_file_of_another_model_is_refused(folders, tmp_path):
    flux_file, short = tmp_path / "flux.safetensors", tmp_path / "short.safetensors"
    save_file(load_file(folders("flux") / WEIGHTS), flux_file)
    refused(flux_file, "a flux file on a sd3 base", base=str(folders("sd3")))
    for family in ("sd3", "pixart"):
        tensors = load_file(folders(family) / WEIGHTS)
        del tensors["proj_out.weight"]
        save_file(tensors, short)
        refused(short, r"proj_out\.weight", base=str(folders(family)))
    save_file({"joint_blocks.0.context_block.adaLN_modulation.1.bias": torch.ones(3)}, short)
    refused(short, "not fit SD3Transformer2DModel", base=str(folders("sd3")))


def test_a_file_alone_names_the_base_that_it_needs(folders, tmp_path, monkeypatch):
    def nothing(reference, **_):
        raise ModelError(f"--model {reference}: not on this machine", "connect")

    path = tmp_path / "tuned.safetensors"
    save_file(load_file(folders("flux") / WEIGHTS), path)
    monkeypatch.setattr(single_file, "resolve", nothing)
    assert "--base, such as black-forest-labs" in refused(path, "flux file without text encoder")
    assert "--base x: not on this machine" in refused(path, "--base x", base="x")
    found = SimpleNamespace(kind="hub", path=folders("flux"))
    monkeypatch.setattr(single_file, "resolve", lambda *_, **__: found)
    assert load(str(path), device="cpu").family.name == "flux"
    save_file({"strange": torch.ones(1)}, path)
    refused(path, "of no family that dit knows")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


@pytest.mark.parametrize("family", ["sd3", "pixart"])
def test_a_pickled_file_loads_weights_only_and_only_with_permission(family, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, tensors = tmp_path / "old.pt", load_file(folders(family) / WEIGHTS)
    torch.save(tensors, path)
    refused(path, "--allow-pickle", base=str(folders(family)))
    model = load(str(path), device="cpu", base=str(folders(family)), allow_pickle=True)
    for key, tensor in model.network.module.state_dict().items():
        assert torch.equal(tensor, tensors[key])
    for content in (tensors | {"evil": Evil()}, b""):
        torch.save(content, path) if content else path.write_bytes(content)
        refused(path, r"old\.pt", base=str(folders(family)), allow_pickle=True)
    assert not Path("evil-was-here").exists()


def test_eight_bit_files_are_refused(folders, tmp_path):
    path = tmp_path / "fp8.safetensors"
    tensors = load_file(folders("flux") / WEIGHTS)
    save_file({k: t.to(torch.float8_e4m3fn) for k, t in tensors.items()}, path)
    refused(path, "8 bits", UnsupportedError, base=str(folders("flux")))


def test_a_base_goes_with_a_file_only(folders):
    refused(folders("sd3"), "--base", UsageError, base=str(folders("sd3")))
