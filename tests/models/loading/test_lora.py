"""LoRA files on tiny pipelines: parsing, effect, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dit_tools.core.errors import ModelError, UsageError
from dit_tools.models.loading import lora
from dit_tools.models.loading.lora import Lora
from tests.support import flux, pixart, sd3
from tests.support.loras import RANK, layers, tensors, write

PIPELINES = {"flux": flux.pipeline, "sd3": sd3.pipeline, "pixart": pixart.pipeline}


def draw(pipe):
    """An image of a fixed seed, as an array."""
    own = {"use_resolution_binning": False} if type(pipe).__name__.startswith("PixArt") else {}
    result = pipe(
        "a red apple",
        height=32,
        width=32,
        num_inference_steps=2,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
        **own,
    )
    return result.images


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("ink.safetensors", "ink.safetensors", 1.0),
        ("ink.safetensors:0.5", "ink.safetensors", 0.5),
        ("ink.safetensors:-1", "ink.safetensors", -1.0),
        (r"C:\styles\ink.safetensors", r"C:\styles\ink.safetensors", 1.0),
        (r"C:\styles\ink.safetensors:0.8", r"C:\styles\ink.safetensors", 0.8),
        ("a:b.safetensors", "a:b.safetensors", 1.0),
        ("folder/ink:2e-1", "folder/ink", 0.2),
    ],
)
def test_the_number_behind_the_last_colon_is_the_scale(text, path, scale):
    assert lora.parse_lora(text) == Lora(Path(path), scale)


def test_a_file_whose_name_ends_in_a_number_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ink:2").write_bytes(b"")
    assert lora.parse_lora("ink:2") == Lora(Path("ink:2"), 1.0)


@pytest.mark.parametrize("text", ["", ":0.5", "ink.safetensors:nan", "ink.safetensors:inf"])
def test_a_spec_without_path_or_with_a_mad_scale_is_a_usage_error(text):
    with pytest.raises(UsageError, match="--lora"):
        lora.parse_lora(text)


@pytest.mark.parametrize("family", PIPELINES)
def test_the_picture_changes_and_scale_zero_gives_the_base_bit_for_bit(family, tmp_path):
    plain = draw(PIPELINES[family]())
    path = write(tmp_path, PIPELINES[family]().transformer)
    styled, silent = PIPELINES[family](), PIPELINES[family]()
    done = lora.apply(styled, [Lora(path, 1.0)])
    lora.apply(silent, [Lora(path, 0.0)])
    assert done[0]["layers"] == len(layers(PIPELINES[family]().transformer)) > 0
    assert done[0]["name"] == "style.safetensors" and len(done[0]["sha256"]) == 64
    assert abs(draw(styled) - plain).max() > 1e-3
    assert (draw(silent) == plain).all()


@pytest.mark.parametrize("family", PIPELINES)
def test_the_adapter_adds_scale_times_b_a_to_the_weight(family, tmp_path):
    pipe = PIPELINES[family]()
    name, module = next(iter(layers(pipe.transformer).items()))
    given = tensors(pipe.transformer)
    x = torch.randn(3, module.in_features, generator=torch.Generator().manual_seed(1))
    down, up = given[f"{name}.lora_A.weight"], given[f"{name}.lora_B.weight"]
    expected = module(x) + 0.5 * (x @ down.T) @ up.T
    lora.apply(pipe, [Lora(write(tmp_path, pipe.transformer), 0.5)])
    adapted = pipe.transformer.get_submodule(name)
    assert torch.allclose(adapted(x), expected, atol=1e-5)


@pytest.mark.parametrize("family", PIPELINES)
def test_two_loras_add(family, tmp_path):
    pipe = PIPELINES[family]()
    name, module = next(iter(layers(pipe.transformer).items()))
    paths = [write(tmp_path, pipe.transformer, f"{i}.safetensors", seed=i) for i in range(2)]
    expected = module.weight.clone()
    for scale, seed in ((0.7, 0), (-0.3, 1)):
        given = tensors(pipe.transformer, seed)
        expected += scale * given[f"{name}.lora_B.weight"] @ given[f"{name}.lora_A.weight"]
    done = lora.apply(pipe, [Lora(paths[0], 0.7), Lora(paths[1], -0.3)])
    assert [entry["scale"] for entry in done] == [0.7, -0.3]
    adapted = pipe.transformer.get_submodule(name)
    x = torch.eye(module.in_features)
    bias = adapted(torch.zeros(1, module.in_features))
    assert torch.allclose((adapted(x) - bias).T, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("prefix", "down", "up"),
    [
        ("base_model.model.", "lora_A.weight", "lora_B.weight"),
        ("", "lora_down.weight", "lora_up.weight"),
        ("transformer.", "lora.down.weight", "lora.up.weight"),
    ],
)
def test_pixart_understands_the_names_of_other_trainers(prefix, down, up, tmp_path):
    pipe = pixart.pipeline()
    path = write(tmp_path, pipe.transformer, prefix=prefix, down=down, up=up)
    reference = pixart.pipeline()
    lora.apply(reference, [Lora(write(tmp_path, reference.transformer, "plain.safetensors"), 1.0)])
    lora.apply(pipe, [Lora(path, 1.0)])
    assert (draw(pipe) == draw(reference)).all()


def test_pixart_understands_kohya_names_with_alpha(tmp_path):
    pipe, reference = pixart.pipeline(), pixart.pipeline()
    made = {}
    for key, tensor in tensors(pipe.transformer).items():
        stem, half = key.split(".lora_")
        flat = "lora_unet_" + stem.replace(".", "_")
        made[f"{flat}.lora_{'down' if half[0] == 'A' else 'up'}.weight"] = tensor
        made[f"{flat}.alpha"] = torch.tensor(1.0)
    path = tmp_path / "kohya.safetensors"
    save_file(made, path)
    lora.apply(pipe, [Lora(path, 1.0)])
    lora.apply(reference, [Lora(write(tmp_path, reference.transformer), 1.0 / RANK)])
    assert abs(draw(pipe) - draw(reference)).max() < 1e-5
    assert abs(draw(pipe) - draw(pixart.pipeline())).max() > 1e-3


def test_the_alpha_of_a_peft_folder_counts(tmp_path):
    pipe, reference = pixart.pipeline(), pixart.pipeline()
    write(tmp_path, pipe.transformer, "adapter_model.safetensors", prefix="base_model.model.")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "r": RANK}))
    lora.apply(pipe, [Lora(tmp_path, 1.0)])
    lora.apply(reference, [Lora(write(tmp_path, reference.transformer), 4 / RANK)])
    assert abs(draw(pipe) - draw(reference)).max() < 1e-5


@pytest.mark.parametrize("family", PIPELINES)
def test_a_lora_for_another_model_is_refused_with_its_keys(family, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(
        {
            "transformer.strange.7.to_q.lora_A.weight": torch.ones(2, 4),
            "transformer.strange.7.to_q.lora_B.weight": torch.ones(4, 2),
        },
        path,
    )
    with pytest.raises(ModelError, match=r"other\.safetensors.*strange\.7\.to_q") as caught:
        lora.apply(PIPELINES[family](), [Lora(path, 1.0)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", PIPELINES)
def test_tensors_of_another_width_are_refused(family, tmp_path):
    pipe = PIPELINES[family]()
    sound = tensors(pipe.transformer, prefix="transformer.")
    made = {key: torch.ones(t.shape[0] + 2, t.shape[1] + 2) for key, t in sound.items()}
    path = tmp_path / "wide.safetensors"
    save_file(made, path)
    with pytest.raises(ModelError, match=r"wide\.safetensors") as caught:
        lora.apply(pipe, [Lora(path, 1.0)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", PIPELINES)
def test_a_lora_that_was_never_trained_is_refused(family, tmp_path):
    pipe = PIPELINES[family]()
    made = {
        key: torch.zeros_like(t) if "lora_B" in key else t
        for key, t in tensors(pipe.transformer, prefix="transformer.").items()
    }
    path = tmp_path / "zero.safetensors"
    save_file(made, path)
    with pytest.raises(ModelError, match="changes no weight"):
        lora.apply(pipe, [Lora(path, 1.0)])


def test_missing_damaged_and_pickled_files_are_refused(tmp_path):
    pipe = pixart.pipeline()
    (tmp_path / "cut.safetensors").write_bytes(b"\x40\0\0\0\0\0\0\0{")
    torch.save({"a": torch.ones(1)}, tmp_path / "old.bin")
    for name, message in (("gone.safetensors", "no such file"), ("cut.safetensors", "damaged"), ("old.bin", "pickle")):
        with pytest.raises(ModelError, match=message):
            lora.apply(pipe, [Lora(tmp_path / name, 1.0)])
