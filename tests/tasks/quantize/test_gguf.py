"""GGUF out and in: the same values, the codes that a scheme chose, and hostile files refused."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import DitError, ModelError, UnsupportedError
from dit_tools.models.loading import gguf_file, gguf_loader
from dit_tools.models.loading.load import load
from dit_tools.models.loading.resolve import resolve
from dit_tools.nn.packed import PackedLinear, restore
from dit_tools.tasks.quantize import packed_folder
from dit_tools.tasks.quantize.quantize import EvalConfig
from tests.support.exports import relative, sampled

FILE = "transformer/diffusion_pytorch_model.gguf"
LAYER = "transformer_blocks.0.ff.net.2"  # 64 weights a row


def make(source: Path, out: Path, text: str = "gguf", scheme: str | None = None) -> Path:
    target = spec.parse("formats", text)
    wanted = packed_folder.QuantizeConfig(out, target.scheme(scheme))
    trial = EvalConfig(prompts=0, calibration=1, steps=2, device="cpu")
    target.make(resolve(str(source)), wanted, trial, lambda event: None)
    return out


@pytest.mark.parametrize("kind, error", [("Q8_0", 0.05), ("Q5_1", 0.3), ("Q4_0", 0.5)])
def test_out_and_in(kind, error, folders, tmp_path):
    out = make(folders("pixart"), tmp_path / "out", f"gguf:type={kind}")
    full, packed = (load(str(f), device="cpu") for f in (folders("pixart"), out))
    layer = packed.network.module.get_submodule(LAYER)
    assert isinstance(layer, PackedLinear) == (kind in gguf_loader.BITS)
    there = {t.name: t for t in gguf.GGUFReader(out / FILE).tensors}  # as the library reads it
    tensor = there[f"{LAYER}.weight"]
    assert tensor.tensor_type.name == kind
    theirs = gguf.dequantize(tensor.data, tensor.tensor_type)
    assert np.array_equal(layer.weight.detach().numpy(), theirs)
    assert 0 < relative(sampled(packed)[0], sampled(full)[0]) < error


def test_a_file_alone_on_a_base(folders, tmp_path):
    out = make(folders("pixart"), tmp_path / "out", "gguf:type=Q8_0")
    shutil.copyfile(out / FILE, tmp_path / "alone.gguf")
    alone = load(str(tmp_path / "alone.gguf"), device="cpu", base=str(folders("pixart")))
    assert relative(sampled(alone)[0], sampled(load(str(out), device="cpu"))[0]) == 0


def test_learned_codes_go_into_the_file(folders, tmp_path):
    scheme = "q-diffusion:bits=4,group=32,iterations=20"
    out = make(folders("pixart"), tmp_path / "out", "gguf", scheme)
    plain = make(folders("pixart"), tmp_path / "plain")
    ours, theirs = (gguf_file.to_numpy(f / FILE, gguf_file.header(f / FILE)[f"{LAYER}.weight"]) for f in (out, plain))
    assert not np.array_equal(ours, theirs)
    with pytest.raises(UnsupportedError, match="cannot hold it"):
        spec.parse("formats", "gguf").scheme("rtn:bits=3")


@pytest.mark.parametrize("kind, bits", [("Q4_0", 4), ("Q8_0", 8)])
def test_blocks_are_those_of_the_library(kind, bits):
    weight = torch.randn(6, 96, generator=torch.Generator().manual_seed(0))
    raw = gguf.quantize(weight.numpy(), gguf.GGMLQuantizationType[kind])
    place = gguf_file.Tensor((6, 96), kind, 0, raw.size)
    codes = gguf_loader._codes(raw.reshape(-1), place)
    from dit_tools.nn.packed_layout import Layout

    made = restore(codes, Layout(6, 96, "int", bits, 32))
    assert np.array_equal(made.numpy(), gguf.dequantize(raw, gguf.GGMLQuantizationType[kind]))
    assert np.array_equal(gguf_loader.blocks_of(codes, 6, 96, kind), raw)


def hostile(head: bytes) -> bytes:
    return b"GGUF" + head


HOSTILE = {
    "does not begin": b"GGML" + bytes(64),
    "version 9": hostile(struct.pack("<IQQ", 9, 0, 0)),
    "counts": hostile(struct.pack("<IQQ", 3, 1 << 60, 0)),
    "too long": hostile(struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 60)),
    "array": hostile(struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 0, 1 << 60)),
    "sides": hostile(struct.pack("<IQQQ", 3, 1, 0, 1) + b"a" + struct.pack("<I", 1 << 30)),
    "unknown type": hostile(struct.pack("<IQQQ", 3, 1, 0, 1) + b"a" + struct.pack("<IQIQ", 1, 32, 9999, 0)),
    "cut off": hostile(struct.pack("<IQQQ", 3, 1, 0, 1) + b"a" + struct.pack("<IQIQ", 1, 32, 0, 1 << 40)),
    "damaged": b"GGUF",
}


@pytest.mark.parametrize("message", HOSTILE)
def test_hostile_files_are_one_line(message, tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(HOSTILE[message])
    with pytest.raises(ModelError, match=message) as caught:
        gguf_file.header(path)
    assert "\n" not in str(caught.value) and "x.gguf" in str(caught.value)
    with pytest.raises(ModelError):
        resolve(str(path))


def test_a_file_of_another_network(folders, tmp_path):
    out = make(folders("pixart"), tmp_path / "out")
    content = (out / FILE).read_bytes()
    (out / FILE).write_bytes(content[:-64])
    with pytest.raises(ModelError, match="cut off"):
        load(str(out), device="cpu")
    (out / FILE).write_bytes(content.replace(b"proj_out.weight", b"proj_oot.weight"))
    with pytest.raises(DitError, match="does not fit"):
        load(str(out), device="cpu")
