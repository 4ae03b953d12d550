"""Folders and single files become torch models: weights, precision, device, autoencoder options."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from dit_tools import sampling
from dit_tools.core.errors import ModelError, UnsupportedError, UsageError
from dit_tools.core.plan import Plan
from dit_tools.models import single_file
from dit_tools.models.families._base import Prompts
from dit_tools.models.load import load
from dit_tools.models.torch_load import pick_device, pick_dtype
from tests.support import dit, flux, lumina2, pixart, qwenimage, sana, sd3, zimage

FAMILIES = {
    "dit": dit, "flux": flux, "lumina2": lumina2, "pixart": pixart, "qwenimage": qwenimage,
    "sana": sana, "sd3": sd3, "zimage": zimage,
}  # fmt: skip
PLAN = {"schedule": "native", "solver": "euler", "guidance": "cfg:scale=3.0", "noise": "philox",
        "cache": "none"}  # fmt: skip
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Family -> a folder with its tiny pipeline, made when it is asked for."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = root / family
            FAMILIES[family].pipeline(made[family])
        return made[family]

    return folder


def copy(source: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(source, target)
    return target


def draw(model, steps: int = 3):
    """Latents and pixels of a short guided run."""
    plan = Plan.parse(steps, PLAN)
    asked = Prompts(("a red apple",), ("blurry",), 32, 32)
    x, noise = sampling.start(model, plan, model.family.latent_shape(32, 32), (3,))
    with torch.no_grad():
        for step in sampling.sample(model, model.encode(asked), x, plan, noise):
            x = step.x
    return x, model.codec.decode(x)


def refused(reference, message, kind=ModelError, **wishes):
    with pytest.raises(kind, match=message) as caught:
        load(str(reference), **({"device": "cpu"} | wishes))
    assert "\n" not in str(caught.value) and caught.value.hint
    return str(caught.value)


# folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_from_a_folder(family, folders):
    model = load(str(folders(family)), device="cpu")
    assert (model.name, model.backend, model.device) == (family, "torch", "cpu")
    assert (model.dtype, model.family.name, model.pipeline) == ("float32", family, None)
    fresh = FAMILIES[family].pipeline().transformer.state_dict()
    for key, tensor in model.network.module.state_dict().items():
        assert torch.equal(tensor, fresh[key])


def test_nothing_is_written_on_stderr(folders, capfd):
    load(str(folders("sd3")), device="cpu")
    assert capfd.readouterr() == ("", "")


def test_missing_tensors_are_not_made_up(folders, tmp_path):
    root = copy(folders("sd3"), tmp_path / "model")
    tensors = load_file(root / WEIGHTS)
    del tensors["proj_out.weight"]
    save_file(tensors, root / WEIGHTS)
    refused(root, r"lack 1 tensors, such as proj_out\.weight")


def test_missing_tensors_of_a_text_encoder_are_not_made_up(folders, tmp_path):
    for family, part in (("sd3", "text_encoder"), ("sd3", "text_encoder_3"), ("flux", "vae")):
        root = copy(folders(family), tmp_path / f"{family}-{part}")
        path = next((root / part).glob("*.safetensors"))
        tensors = load_file(path)
        name = max(tensors, key=lambda key: (tensors[key].numel(), key))
        save_file({k: t for k, t in tensors.items() if k != name}, path, {"format": "pt"})
        refused(root, f"{part}: ")


def test_a_truncated_file_is_named_before_it_is_opened(folders, tmp_path):
    root = copy(folders("sd3"), tmp_path / "model")
    for part in ("transformer/diffusion_pytorch_model", "text_encoder/model"):
        path = root / f"{part}.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-3])
        refused(root, rf"{path.parent.name}/{path.name}: damaged")
        path.write_bytes(content)
    assert load(str(root), device="cpu").backend == "torch"


def test_a_config_that_does_not_fit_its_weights_is_one_line(folders, tmp_path):
    root = copy(folders("sd3"), tmp_path / "model")
    config = json.loads((root / "transformer/config.json").read_text())
    (root / "transformer/config.json").write_text(json.dumps(config | {"attention_head_dim": 16}))
    refused(root, "model")


def test_an_unknown_pipeline_class_is_named(folders, tmp_path):
    root = copy(folders("sd3"), tmp_path / "model")
    index = json.loads((root / "model_index.json").read_text())
    (root / "model_index.json").write_text(json.dumps(index | {"_class_name": "TomorrowPipeline"}))
    assert "update" in refused(root, "has no TomorrowPipeline")


def test_pickled_weights_load_only_with_permission(folders, tmp_path):
    root = copy(folders("pixart"), tmp_path / "model")
    pickled = root / "transformer/diffusion_pytorch_model.bin"
    torch.save(load_file(root / WEIGHTS), pickled)
    (root / WEIGHTS).unlink()
    refused(root, "--allow-pickle")
    model = load(str(root), device="cpu", allow_pickle=True)
    theirs = load(str(folders("pixart")), device="cpu").network.module.state_dict()
    assert all(torch.equal(t, theirs[k]) for k, t in model.network.module.state_dict().items())


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


def test_a_pickle_runs_no_code_even_with_permission(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = copy(folders("pixart"), tmp_path / "model")
    (root / WEIGHTS).unlink()
    torch.save({"w": Evil()}, root / "transformer/diffusion_pytorch_model.bin")
    refused(root, "model", allow_pickle=True)
    assert not Path("evil-was-here").exists()


def test_half_precision_variants_load_where_nothing_else_is_there(tmp_path):
    pipe = sd3.pipeline()
    pipe.save_pretrained(tmp_path / "model", variant="fp16")
    assert not (tmp_path / "model" / WEIGHTS).exists()
    model = load(str(tmp_path / "model"), device="cpu")
    key, tensor = next(iter(pipe.transformer.state_dict().items()))
    assert torch.equal(model.network.module.state_dict()[key], tensor)


def test_the_facts_of_a_built_in_model_rule(folders, tmp_path):
    root = copy(folders("pixart"), tmp_path / "model")
    facts = {"default_steps": 7, "default_cfg": 2.5, "size": 32, "solver": "heun", "alpha": True}
    (root / "dit.json").write_text(json.dumps(facts))
    model = load(str(root), backend="torch", device="cpu")
    assert (model.defaults.steps, model.defaults.cfg, model.defaults.size) == (7, 2.5, 32)
    assert model.defaults.solver == "heun" and model.alpha is True


# precision and devices ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd3", "pixart", "flux"])
def test_bfloat16_on_the_cpu_stays_close_to_float32(family, folders):
    full, half = (load(str(folders(family)), device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    assert half.dtype == "bfloat16" and half.network.module.dtype == torch.bfloat16
    (x, pixels), (y, other) = draw(full), draw(half)
    assert y.dtype == torch.float32
    error = float((x - y).norm() / x.norm())
    assert 0 < error < 0.05, f"latents differ by {error:.3f}"
    assert abs(pixels - other).mean() < 0.02


@pytest.mark.parametrize("family", ["sd3", "pixart"])
def test_float16_on_the_cpu_stays_close_to_float32(family, folders):
    full, half = (load(str(folders(family)), device="cpu", dtype=d) for d in ("float32", "float16"))
    x, y = draw(full)[0], draw(half)[0]
    assert 0 < float((x - y).norm() / x.norm()) < 0.01


def test_automatic_precision_goes_with_the_device(monkeypatch):
    assert pick_dtype("auto", "cpu") is torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated=True: True)
    assert pick_dtype("auto", "cuda") is torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda emulated=True: emulated)
    assert pick_dtype("auto", "cuda:0") is torch.float16
    assert pick_dtype("float16", "cpu") is torch.float16
    with pytest.raises(UsageError, match="--dtype int8"):
        pick_dtype("int8", "cpu")


def test_automatic_device_takes_the_best_one(monkeypatch):
    for gpu, apple, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda apple=apple: apple)
        assert pick_device("auto") == expected


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda") == "cuda" and pick_device("cuda:0") == "cuda:0"
    for wish in ("cuda:1", "cuda:7", "meta"):
        with pytest.raises(UnsupportedError, match=f"--device {wish}"):
            pick_device(wish)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for wish in ("cuda", "mps"):
        with pytest.raises(UnsupportedError, match=f"--device {wish}"):
            pick_device(wish)
    with pytest.raises(UsageError, match="--device gpu"):
        pick_device("gpu")


# LoRA through the front door ------------------------------------------------------------------------


def test_loras_are_applied_and_noted(folders, tmp_path):
    from tests.models.test_lora import write

    path = write(tmp_path, sd3.pipeline().transformer)
    plain = load(str(folders("sd3")), device="cpu")
    styled = load(str(folders("sd3")), device="cpu", loras=(f"{path}:0.5", str(path)))
    assert [entry["scale"] for entry in styled.notes["loras"]] == [0.5, 1.0]
    assert float((draw(plain)[0] - draw(styled)[0]).norm()) > 1e-3


# autoencoder options --------------------------------------------------------------------------------


def test_slicing_gives_the_same_picture_and_tiling_is_on(folders):
    x, pixels = draw(load(str(folders("sd3")), device="cpu"))
    sliced = load(str(folders("sd3")), device="cpu", vae_slicing=True)
    assert sliced.pipe.vae.use_slicing and not sliced.pipe.vae.use_tiling
    batch = torch.cat([x, x])
    assert abs(sliced.codec.decode(batch) - pixels).max() < 1e-5
    tiled = load(str(folders("sd3")), device="cpu", vae_tiling=True)
    assert tiled.pipe.vae.use_tiling and not tiled.pipe.vae.use_slicing


def test_an_autoencoder_without_tiling_is_refused(folders, monkeypatch):
    from diffusers import AutoencoderKL

    for base in AutoencoderKL.__mro__:
        if "enable_tiling" in vars(base):
            monkeypatch.delattr(base, "enable_tiling")
    refused(folders("sd3"), "--vae-tiling: AutoencoderKL", UnsupportedError, vae_tiling=True)


# single files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_of_a_transformer_file_is_told_from_its_names(family):
    names = FAMILIES[family].pipeline().transformer.state_dict()
    assert single_file.detect(names) == family


def test_names_of_the_first_releases_are_known_too():
    for name, family in (
        ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "flux"),
        ("joint_blocks.0.context_block.adaLN_modulation.1.bias", "sd3"),
        ("t_block.1.weight", "pixart"),
        ("first_stage_model.decoder.conv_in.weight", None),
    ):
        assert single_file.detect([name]) == family


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
    "attn.norm_q": "x_block.attn.ln_q", "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q", "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q", "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1", "ff_context.net.2": "context_block.mlp.fc2",
}  # fmt: skip
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
        parts = [
            tensors[f"transformer_blocks.{number}.{pattern.format(letter)}.{leaf}"]
            for letter in "qkv"
        ]
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


def test_eight_bit_files_are_refused(folders, tmp_path):
    path = tmp_path / "fp8.safetensors"
    tensors = load_file(folders("flux") / WEIGHTS)
    save_file({k: t.to(torch.float8_e4m3fn) for k, t in tensors.items()}, path)
    refused(path, "8 bits", UnsupportedError, base=str(folders("flux")))


def test_a_base_goes_with_a_file_only(folders):
    refused(folders("sd3"), "--base", UsageError, base=str(folders("sd3")))
