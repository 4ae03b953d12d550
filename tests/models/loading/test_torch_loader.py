"""Folders and single files become torch models: weights, precision, device, autoencoder options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.models.loading.load import load
from dit_tools.models.loading.torch_loader import pick_device, pick_dtype
from tests.support import loras, sd3
from tests.support.loading import FAMILIES, WEIGHTS, copy, draw, refused

# folders ----------------------------------------------------------------------------------------


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


# precision and devices --------------------------------------------------------------------------


# Not the tiny SD3: its random weights amplify any rounding, by how much depends on the build.
@pytest.mark.parametrize("family", ["pixart", "flux"])
def test_bfloat16_on_the_cpu_stays_close_to_float32(family, folders):
    full, half = (load(str(folders(family)), device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    assert half.dtype == "bfloat16" and half.network.module.dtype == torch.bfloat16
    (x, pixels), (y, other) = draw(full), draw(half)
    assert y.dtype == torch.float32
    error = float((x - y).norm() / x.norm())
    assert 0 < error < 0.1, f"latents differ by {error:.3f}"
    assert abs(pixels - other).mean() < 0.02


@pytest.mark.parametrize("family", ["pixart", "flux"])
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


# LoRA through the front door --------------------------------------------------------------------


def test_loras_are_applied_and_noted(folders, tmp_path):
    path = loras.write(tmp_path, sd3.pipeline().transformer)
    plain = load(str(folders("sd3")), device="cpu")
    styled = load(str(folders("sd3")), device="cpu", loras=(f"{path}:0.5", str(path)))
    assert [entry["scale"] for entry in styled.notes["loras"]] == [0.5, 1.0]
    assert float((draw(plain)[0] - draw(styled)[0]).norm()) > 1e-3


# autoencoder options ----------------------------------------------------------------------------


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
