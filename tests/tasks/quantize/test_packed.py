"""Bits, grids and the packed layer, each against an independent computation."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core import spec
from dit_tools.nn.packed import PackedLinear, dequantize, linear_of, pack, restore, unpack
from dit_tools.nn.packed_layout import Layout, packed_bytes
from dit_tools.nn.quantizers import neighbours, scales, snr, value


def scheme(text: str):
    return spec.parse("quantization", text)


def weight(rows: int = 64, columns: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def packed(text: str, w: torch.Tensor, seen=None):
    layout = scheme(text).layout(*w.shape)
    return layout, scheme(text).pack(w, layout, seen)


def decibels(text: str, w: torch.Tensor, seen=None) -> float:
    layout, tensors = packed(text, w, seen)
    noise = restore(tensors, layout) - w
    return snr(float(w.square().sum()), float(noise.square().sum()))


@given(st.integers(1, 8), st.integers(1, 37), st.integers(0, 2**32 - 1))
def test_codes_come_back_and_rows_are_bit_streams(bits: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (2, count))
    bytes_ = pack(torch.tensor(codes), bits)
    assert bytes_.shape == (2, packed_bytes(count, bits)) and bytes_.dtype == torch.uint8
    assert (unpack(bytes_, bits, count).numpy() == codes).all()
    stream = np.unpackbits(bytes_.numpy(), axis=1, bitorder="little")  # lowest bits first
    for row, line in zip(codes, stream, strict=True):
        for i, code in enumerate(row):
            assert int(line[i * bits : (i + 1) * bits] @ (1 << np.arange(bits))) == code


CASES = [
    "rtn",
    "rtn:bits=4",
    "rtn:bits=3,group=50",
    "rtn:bits=2,zero=true",
    "rtn:bits=5,group=0",
    "fp8",
    "fp8:group=32",
]


@pytest.mark.parametrize("text", CASES)
def test_tensors_are_those_of_the_layout(text: str) -> None:
    layout, tensors = packed(text, weight())
    kinds = {torch.uint8: "U8", torch.float16: "F16"}
    assert {k: (kinds[t.dtype], tuple(t.shape)) for k, t in tensors.items()} == layout.tensors()
    assert layout.nbytes == sum(t.numel() * t.element_size() for t in tensors.values())
    assert Layout.from_json(layout.to_json(), 64, 256) == layout


def test_int4_by_hand() -> None:
    w = torch.tensor([[0.0, 0.7, -0.7, 0.31], [1.4, -0.2, 0.1, 0.0]])
    layout, tensors = packed("rtn:bits=4,group=2", w)
    assert layout.groups == 2
    step = np.array([[0.1, 0.1], [0.2, 0.1 / 7]], np.float16).astype(np.float64)
    assert np.array_equal(tensors["scale"].double().numpy(), step)
    wide = np.repeat(step, 2, 1)
    codes = np.clip(np.rint(w.double().numpy() / wide), -8, 7)
    assert np.allclose(restore(tensors, layout).numpy(), codes * wide, atol=1e-6)
    low = (codes + 8).astype(np.uint8)
    assert tensors["packed"].tolist() == (low[:, ::2] | low[:, 1::2] << 4).tolist()


@pytest.mark.parametrize("name, kind", [("fp8", ml_dtypes.float8_e4m3fn)])
def test_floating_point_is_the_format_of_ml_dtypes(name: str, kind) -> None:
    layout, tensors = packed(name, weight())
    scale = tensors["scale"].float().numpy()
    expected = (weight().numpy() / scale).clip(-448, 448).astype(kind).astype(np.float32) * scale
    assert np.array_equal(restore(tensors, layout).numpy(), expected)


# SNR in dB of Gaussian weights in rows of 1024, as measured apart from this code
TABLE = {
    "rtn": 42.1,
    "rtn:bits=4,group=0": 16.9,
    "rtn:bits=4,group=128": 18.6,
    "rtn:bits=4,group=32": 20.3,
    "rtn:bits=3,group=32": 12.9,
    "rtn:bits=6,group=0": 29.8,
    "rtn:bits=4,group=0,clip=mse": 18.7,
    "fp8": 31.6,
}


@pytest.mark.parametrize("text, expected", TABLE.items(), ids=TABLE)
def test_signal_to_noise_of_gaussian_weights(text: str, expected: float) -> None:
    assert decibels(text, weight(128, 1024)) == pytest.approx(expected, abs=1.0)


def test_heavy_tails_favour_floating_point() -> None:
    heavy = torch.tensor(np.random.default_rng(0).standard_t(3, (64, 1024)), dtype=torch.float32)
    assert decibels("fp8", heavy) > decibels("rtn:bits=6,group=0", heavy) + 5


def test_a_range_found_by_search_is_never_worse() -> None:
    w = weight()
    for kind in ({"bits": 4}, {"bits": 2, "zero": True}, {"kind": "fp4", "bits": 4}):
        layout = Layout(64, 256, group=64, **{"kind": "int", **kind})
        norms = []
        for candidates in (0, 80):
            found = scales(w, layout, candidates)
            from dit_tools.nn.quantizers import round_to_nearest

            norms.append(float((round_to_nearest(w, found, layout) - w).abs().pow(2.4).sum()))
        assert norms[1] < norms[0]


@pytest.mark.parametrize("kind, bits", [("int", 4), ("int", 8), ("fp8", 8), ("fp4", 4)])
def test_neighbours_enclose_the_weight(kind: str, bits: int) -> None:
    layout = Layout(64, 256, kind, bits, 32)
    w = weight()
    found = scales(w, layout)
    low, high = (value(c.to(torch.uint8), found, layout) for c in neighbours(w, found, layout))
    inside = (low <= w) & (w <= high)
    assert inside.float().mean() > 0.97  # the rest lies beyond a scale that was rounded down
    assert ((high - low)[inside] <= 2 * (w - low).maximum(high - w)[inside] + 1e-6).all()


def test_zeros_stay_zeros() -> None:
    for text in CASES:
        layout, tensors = packed(text, torch.zeros(4, 256))
        assert restore(tensors, layout).abs().max() == 0, text


# the layer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", CASES)
def test_the_layer_computes_with_the_restored_weight(text: str) -> None:
    layout, tensors = packed(text, weight())
    plain = torch.nn.Linear(256, 64)
    layer = linear_of(layout, tensors, plain)
    x = torch.randn(2, 5, 256)
    expected = torch.nn.functional.linear(x, restore(tensors, layout), plain.bias)
    assert torch.allclose(layer(x), expected, atol=1e-4)
    assert torch.equal(layer.weight, restore(tensors, layout))


@pytest.mark.parametrize("bits", [4, 8])
def test_activations_are_quantized_per_token(bits: int) -> None:
    base, tensors = packed("rtn" if bits == 8 else "rtn:bits=4", weight())
    layout = Layout(64, 256, "int", base.bits, base.group, act=bits)
    layer = linear_of(layout, tensors, torch.nn.Linear(256, 64, bias=False))
    x = torch.randn(3, 7, 256) * torch.logspace(-3, 2, 7)[:, None]
    top = 2 ** (bits - 1) - 1
    step = np.abs(x.double().numpy()).max(-1, keepdims=True) / top
    rounded = np.rint(x.double().numpy() / step) * step
    expected = rounded @ restore(tensors, layout).double().numpy().T
    got = layer(x).numpy()
    close = np.abs(got - expected).max(-1) <= 0.02 * np.abs(expected).max(-1)
    assert close.mean() > 0.9  # a half may be rounded either way in float32
    assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()


def test_the_product_in_whole_numbers_is_that_in_floating_point() -> None:
    _, tensors = packed("rtn", weight())
    layout = Layout(64, 256, act=8)
    layer = linear_of(layout, tensors, torch.nn.Linear(256, 64))
    x = torch.randn(9, 256)
    assert layer._whole_numbers(x)
    whole = layer(x)
    layer._whole_numbers = lambda x: False  # type: ignore[method-assign]
    assert torch.allclose(whole, layer(x), rtol=1e-4, atol=1e-3)


def test_branch_and_balance() -> None:
    layout = Layout(6, 8, "int", 8, balance=True, rank=2)
    _, tensors = packed("rtn", weight(6, 8))
    tensors |= {"balance": torch.rand(8).half() + 0.5, "down": torch.randn(2, 8).half(), "up": torch.randn(6, 2).half()}
    layer = linear_of(layout, tensors, torch.nn.Linear(8, 6))
    x = torch.randn(3, 8)
    inner = dequantize(tensors, layout, torch.float32) + tensors["up"].float() @ tensors["down"].float()
    expected = (x * tensors["balance"].float()) @ inner.T + layer.bias
    assert torch.allclose(layer(x), expected, atol=1e-4)
    assert torch.allclose(x @ layer.weight.T + layer.bias, expected, atol=1e-4)


def test_half_precision_input_gives_half_precision_output() -> None:
    layout, tensors = packed("rtn:bits=4", weight())
    layer = linear_of(layout, tensors, torch.nn.Linear(256, 64).bfloat16())
    assert layer(torch.randn(2, 256, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert isinstance(layer, PackedLinear) and layer.weight.dtype == torch.bfloat16


BAD = [
    {"kind": "int9"},
    {"bits": 0},
    {"bits": 13},
    {"group": -1},
    {"rank": 99},
    {"act": 3},
    {"bits": 2.0},
    {"zero": 1},
    {"kind": "fp8", "bits": 4},
    {"length": 2},
    {"kind": "vq", "bits": 8, "length": 3},
    {"kind": "fp8", "zero": True},
]


@pytest.mark.parametrize("table", BAD, ids=str)
def test_layouts_that_cannot_be(table: dict) -> None:
    with pytest.raises(ValueError):
        Layout.from_json(table, 64, 64)


def test_a_layer_of_absurd_size_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ValueError):
        Layout(1 << 20, 1 << 20)
    with pytest.raises(ValueError):
        Layout.from_json(["int"], 4, 4)
    assert math.isnan(snr(0, 1)) and snr(1, 0) == math.inf
