"""Folders in, packed folders out: every family runs, damage is found, nothing is half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dit_tools.core import spec
from dit_tools.core.errors import InputError, ModelError, UnsupportedError, UsageError
from dit_tools.models.loading import validation
from dit_tools.models.loading.load import load
from dit_tools.models.loading.resolve import resolve
from dit_tools.nn.packed import PackedLinear
from dit_tools.tasks.quantize import denoising_error, packed_folder
from tests.support.loading import FAMILIES, WEIGHTS, copy, draw, refused


def make(source: Path, out: Path, text: str = "rtn", **fields):
    wanted = packed_folder.QuantizeConfig(out, spec.parse("quantization", text), **fields)
    found = resolve(str(source))
    layers = packed_folder.preflight(found, wanted)
    return layers, packed_folder.write_folder(found, wanted, layers, {}, lambda folder: {"verdict": {"psnr": 1.0}})


def layers_of(module) -> dict[str, PackedLinear]:
    return {n: m for n, m in module.named_modules() if isinstance(m, PackedLinear)}


def probing_draw(model):
    return next(denoising_error.sample_prompts(model, denoising_error.default_prompts(model, 1), 2)).latents


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_packed(family, folders, tmp_path):
    layers, facts = make(folders(family), tmp_path / "out")
    full = load(str(folders(family)), device="cpu")
    model = load(str(tmp_path / "out"), device="cpu")
    assert len(layers_of(model.network.module)) == len(layers.packed()) > 3
    draws = probing_draw if family == "dit" else lambda model: draw(model, 2)[0]
    expected, got = draws(full), draws(model)
    assert 0 < float((got - expected).abs().max()) < 0.2 * float(expected.abs().max())
    size = (tmp_path / "out" / WEIGHTS).stat().st_size
    assert facts["bytes"] <= size < facts["bytes"] + 4096 + 400 * len(layers.entries) + 4096


def test_weights_are_what_the_scheme_makes_of_them(folders, tmp_path):
    make(folders("pixart"), tmp_path / "out", "rtn:bits=4,group=8")
    theirs = load(str(folders("pixart")), device="cpu").network.module
    ours = load(str(tmp_path / "out"), device="cpu").network.module
    for name, layer in layers_of(ours).items():
        plain = theirs.get_submodule(name).weight
        scheme = spec.parse("quantization", "rtn:bits=4,group=8")
        if layer.layout.bits == 8:
            scheme = spec.parse("quantization", "rtn")
        from dit_tools.nn.packed import restore

        layout = scheme.layout(*plain.shape)
        assert torch.equal(layer.weight, restore(scheme.pack(plain, layout, None), layout))
        assert torch.equal(layer.bias, theirs.get_submodule(name).bias)
    rest = {n: t for n, t in ours.state_dict().items() if n in theirs.state_dict()}
    assert all(torch.equal(t, theirs.state_dict()[n]) for n, t in rest.items())


def test_pieces_of_rows_give_the_same_file(folders, tmp_path, monkeypatch):
    make(folders("sd3"), tmp_path / "a", "rtn:bits=3,group=8")
    monkeypatch.setattr(packed_folder, "BLOCK_WEIGHTS", 64)
    make(folders("sd3"), tmp_path / "b", "rtn:bits=3,group=8")
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()


def test_the_card_and_the_table(folders, tmp_path):
    make(folders("dit"), tmp_path / "out", keep=("attn1.to_q",))
    card = validation.metadata(tmp_path / "out" / WEIGHTS)
    assert json.loads(card["dit.scheme"]) == "rtn" and json.loads(card["dit.verdict"])["psnr"] == 1
    facts = json.loads((tmp_path / "out/quantize.json").read_text())
    whys = {row["name"]: row["why"] for row in facts["layers"]}
    assert whys["transformer_blocks.0.attn1.to_q"] == "kept"
    assert whys["proj_out_2"] == "sensitive"
    with safe_open(tmp_path / "out" / WEIGHTS, "pt") as file:
        assert "transformer_blocks.0.attn1.to_q.weight" in file.keys()
        assert "transformer_blocks.0.attn1.to_k.packed" in file.keys()


def test_a_model_in_shards_and_half_precision(tmp_path):
    pipe = FAMILIES["pixart"].pipeline()
    pipe.transformer.half()
    pipe.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    assert len(list((tmp_path / "model/transformer").glob("*.safetensors"))) > 2
    make(tmp_path / "model", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out/transformer").iterdir() if "index" in p.name or "-of-" in p.name] == []
    model = load(str(tmp_path / "out"), device="cpu", dtype="bfloat16")
    assert model.network.module.dtype == torch.bfloat16
    draw(model, 2)


# refusals ---------------------------------------------------------------------------------------


def refusal(kind, message, source, out, text="rtn", **fields):
    before = sorted(out.parent.iterdir())
    with pytest.raises(kind, match=message) as caught:
        make(source, out, text, **fields)
    assert caught.value.hint and "\n" not in str(caught.value)
    assert sorted(out.parent.iterdir()) == before


def test_what_is_refused(folders, tmp_path):
    source, out = folders("pixart"), tmp_path / "out"
    make(source, out)
    refusal(InputError, "exists; add --overwrite", source, out)
    refusal(UnsupportedError, "quantized already", out, tmp_path / "twice")
    refusal(UsageError, "--keep", source, tmp_path / "new", keep=("(",))
    refusal(UsageError, "keeps every layer", source, tmp_path / "new", keep=("",))
    refusal(InputError, "the model itself lies there", source, source)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    refusal(InputError, "no quantized model", source, tmp_path / "full", overwrite=True)
    refusal(UnsupportedError, "single file", source / WEIGHTS, tmp_path / "new")
    make(source, out, "fp8", overwrite=True)
    assert json.loads((out / "quantize.json").read_text())["scheme"] == "fp8"


def damaged(folders, tmp_path, change) -> Path:
    root = copy(folders("pixart"), tmp_path / "model")
    tensors = load_file(root / WEIGHTS)
    change(tensors)
    save_file(tensors, root / WEIGHTS, {"format": "pt"})
    return root


NAME = "transformer_blocks.0.attn1.to_q.weight"


def test_nan_in_a_weight_leaves_nothing(folders, tmp_path):
    root = damaged(folders, tmp_path, lambda t: t[NAME][3].fill_(torch.nan))
    refusal(ModelError, "attn1.to_q: holds NaN", root, tmp_path / "out")
    other = damaged(folders, tmp_path / "b", lambda t: t["scale_shift_table"].fill_(torch.inf))
    refusal(ModelError, "scale_shift_table: holds NaN", other, tmp_path / "out")


def test_weights_of_another_network(folders, tmp_path):
    root = damaged(folders, tmp_path, lambda t: t.pop(NAME))
    refusal(ModelError, "lacks 1 tensors", root, tmp_path / "out")
    root = damaged(folders, tmp_path / "b", lambda t: t.update(more=torch.ones(2)))
    refusal(UnsupportedError, "more is not a tensor of the network", root, tmp_path / "out")
    root = damaged(folders, tmp_path / "c", lambda t: t.update({NAME: t[NAME].to(torch.int8)}))
    refusal(UnsupportedError, "is I8: quantized already", root, tmp_path / "out")


def test_a_full_disk(folders, tmp_path, monkeypatch):
    import errno
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000))
    refusal(InputError, "are needed", folders("pixart"), tmp_path / "out")
    monkeypatch.undo()

    def full(self, name, tensor):
        raise OSError(code, "No space left on device")

    monkeypatch.setattr(packed_folder.SafetensorsWriter, "write", full)
    code = errno.EFBIG  # would come again: nothing stays
    refusal(InputError, "larger than this system", folders("pixart"), tmp_path / "out")
    code = errno.ENOSPC  # what is done stays: tests/cli/test_quantize_resume.py goes on with it
    with pytest.raises(InputError, match="the disk is full; free some space and run the same"):
        make(folders("pixart"), tmp_path / "out")
    assert [path.name[:10] for path in tmp_path.iterdir()] == [".dit-part-"]


# hostile files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed_model(folders, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    make(folders("pixart"), out, "rtn:bits=4,group=8")
    return out


def with_config(root: Path, change) -> None:
    path = root / "transformer/config.json"
    config = json.loads(path.read_text())
    change(config["quantization_config"])
    path.write_text(json.dumps(config))


LAYER = "transformer_blocks.0.attn1.to_q"
CONFIGS = {
    "no linear layer": lambda q: q["layers"].update({"pos_embed": {"bits": 4}}),
    "out of bounds": lambda q: q["layers"][LAYER].update(bits=99),
    "not of its type": lambda q: q["layers"][LAYER].update(group="8"),
    "not described": lambda q: q["layers"].update({LAYER: [1]}),
    "is wanted": lambda q: q["layers"][LAYER].update(group=4),
    "lacks": lambda q: q["layers"][LAYER].update(rank=2),
    "is no tensor": lambda q: q["layers"].pop(LAYER) and None,
    "another version": lambda q: q.update(version=2),
    "names no packed layers": lambda q: q.update(layers=3),
}


@pytest.mark.parametrize("message", CONFIGS)
def test_hostile_tables(message, packed_model, tmp_path):
    root = copy(packed_model, tmp_path / "model")
    with_config(root, CONFIGS[message])
    if message == "is no tensor":
        message = "lacks"
    refused(root, message)


def test_damaged_weights(packed_model, tmp_path):
    root = copy(packed_model, tmp_path / "model")
    content = (root / WEIGHTS).read_bytes()
    (root / WEIGHTS).write_bytes(content[:-5])
    refused(root, "damaged")
    tensors = load_file(packed_model / WEIGHTS)
    tensors[f"{LAYER}.packed"] = tensors[f"{LAYER}.packed"].to(torch.float32)
    save_file(tensors, root / WEIGHTS, {"format": "pt"})
    refused(root, "is wanted")


def test_a_lora_does_not_go_on_packed_weights(packed_model):
    refused(packed_model, "packed", UnsupportedError, loras=("nothing.safetensors",))


# going on after a kill --------------------------------------------------------------------------


def killed(work) -> int:
    """Run ``work`` in a process of its own; returns the signal that ended it."""
    import os

    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("text", ["rtn:bits=4,group=8", "q-diffusion:group=8,iterations=2"])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(text, folders, tmp_path):
    import os
    import signal

    from dit_tools.tasks.quantize.quantize import EvalConfig, quantize

    source, trial = resolve(str(folders("pixart"))), EvalConfig(0, 1, 1, "cpu")
    count = 0

    def fragile(event):
        nonlocal count
        count += event["type"] == "layer"
        if count == 7:
            os.kill(os.getpid(), signal.SIGKILL)

    def go(out, tell=lambda event: None):
        return quantize(source, packed_folder.QuantizeConfig(out, spec.parse("quantization", text)), trial, tell)

    assert killed(lambda: go(tmp_path / "out", fragile)) == -signal.SIGKILL
    assert [path.name[:10] for path in tmp_path.iterdir()] == [".dit-part-"]
    told = []
    facts = go(tmp_path / "out", lambda event: told.append(event.get("name")))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    plain = go(tmp_path / "plain")
    assert len(told) == len(facts["layers"]) - 7
    assert facts["layers"] == plain["layers"]
    ours, theirs = (sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")) for n in ("out", "plain"))
    assert ours == theirs
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (tmp_path / "plain" / WEIGHTS).read_bytes()


def test_two_at_the_same_work_do_not_mix(folders, tmp_path):
    from dit_tools.tasks.quantize import resume

    source = resolve(str(folders("pixart")))
    wanted = packed_folder.QuantizeConfig(tmp_path / "out", spec.parse("quantization", "rtn"))
    with (
        pytest.raises(KeyboardInterrupt),
        resume.workplace(wanted.output, False, packed_folder.request(source, wanted)),
    ):
        refusal_of_a_second = pytest.raises(InputError, match="another dit quantize")
        with refusal_of_a_second:
            make(folders("pixart"), tmp_path / "out")
        raise KeyboardInterrupt
    assert len(list(tmp_path.iterdir())) == 1  # kept: the same command goes on
    make(folders("pixart"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
