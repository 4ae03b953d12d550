"""Calibrated schemes: each lessens the error that it is about, on arrays small enough to check."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.registry import get, names
from dit_tools.methods.quantization import ActivationStats
from dit_tools.nn.packed import linear_of, restore, unpack
from dit_tools.nn.packed_layout import Layout
from dit_tools.nn.quantizers import learn_rounding, nearest, output_error, scales, snr, value
from dit_tools.nn.vector_quantization import calibrate_codebook, closest, kmeans

ROOM = "quantization"


def scheme(text: str):
    return spec.parse(ROOM, text)


def inputs(columns: int = 64, tokens: int = 4000, seed: int = 1) -> torch.Tensor:
    """Correlated activations, as layers see them."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(columns, columns, generator=generator))[0]
    mix = turn * torch.logspace(0, -1.5, columns)[:, None]
    return torch.randn(tokens, columns, generator=generator) @ mix + 0.1


def seen(x: torch.Tensor) -> ActivationStats:
    return ActivationStats(x.T @ x / len(x), x.abs().amax(0), x[:: len(x) // 128][:128])


def weight(rows: int = 48, columns: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) / 8


def error(text: str, w: torch.Tensor, x: torch.Tensor) -> float:
    """Mean square error of the layer's output, activations quantized or not."""
    made = scheme(text)
    layout = made.layout(*w.shape)
    tensors = made.pack(w, layout, seen(x) if made.calibration else None)
    layer = linear_of(layout, tensors, torch.nn.Linear(w.shape[1], w.shape[0], bias=False))
    return float((layer(x) - x @ w.T).square().mean())


# every scheme -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names(ROOM))
def test_every_scheme_fills_its_layout_with_and_without_calibration(name: str) -> None:
    made = get(ROOM, name)()
    w = weight()
    layout = made.layout(*w.shape)
    kinds = {torch.uint8: "U8", torch.float16: "F16"}
    for known in (None, seen(inputs())):
        tensors = made.pack(w, layout, known)
        assert {k: (kinds[t.dtype], tuple(t.shape)) for k, t in tensors.items()} == layout.tensors()
        noise = restore(tensors, layout) - w
        assert snr(float(w.square().sum()), float(noise.square().sum())) > 5
    again = made.pack(w, layout, seen(inputs()))
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)


def test_the_moments_give_the_error_of_the_output() -> None:
    x, w = inputs(), weight()
    made = w + 0.01 * weight(seed=5)
    direct = (x @ (made - w).T).double().square().sum(1).mean()
    assert output_error(w, made, seen(x).moments) == pytest.approx(float(direct), rel=1e-4)


# learned rounding -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, bits", [("int", 4), ("int", 2), ("fp4", 4)])
def test_learned_rounding_lessens_the_error_and_moves_by_one_step(kind: str, bits: int) -> None:
    x, w = inputs(), weight()
    layout = Layout(*w.shape, kind, bits, 16)
    found = scales(w, layout, 80)
    near = nearest(w, found, layout)
    made = learn_rounding(w, found, layout, seen(x).moments, 300)
    errors = [output_error(w, value(c, found, layout), seen(x).moments) for c in (near, made)]
    assert errors[1] < (0.5 if kind == "int" else 0.65) * errors[0]
    if kind == "int":
        assert (made.int() - near.int()).abs().max() == 1
    fresh = seen(inputs(seed=1)[::2])  # and on a part of the inputs alone
    assert output_error(w, value(made, found, layout), fresh.moments) < errors[0]


def test_learning_with_white_inputs_has_nothing_to_gain() -> None:
    w = weight()
    layout = Layout(*w.shape, "int", 4, 16)
    found = scales(w, layout)
    made = learn_rounding(w, found, layout, torch.eye(64), 50)
    assert torch.equal(made, nearest(w, found, layout))


def test_calibration_on_the_wrong_inputs_is_worse() -> None:
    x, w = inputs(), weight()
    noise = torch.randn(4000, 64, generator=torch.Generator().manual_seed(3))
    made = scheme("q-diffusion:group=16")
    layout = made.layout(*w.shape)
    right, wrong = (restore(made.pack(w, layout, seen(some)), layout) for some in (x, noise))
    moments = seen(x).moments
    assert output_error(w, right, moments) < 0.7 * output_error(w, wrong, moments)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        ("q-diffusion", "rtn:bits=4"),
        ("q-diffusion:bits=3", "rtn:bits=3"),
        ("fp4", "rtn:bits=4"),
        ("fp4", "fp4:iterations=0"),
        ("vq4dit", "vq4dit:iterations=0"),
        ("vq4dit:bits=3", "vq4dit:bits=3,iterations=0"),
    ],
)
def test_calibrated_schemes_beat_their_rivals(ours: str, theirs: str) -> None:
    x = inputs(128)
    assert error(ours, weight(64, 128), x) < 0.8 * error(theirs, weight(64, 128), x)


# balance ----------------------------------------------------------------------------------------


def test_a_balanced_layer_is_the_same_layer() -> None:
    x, w = inputs(), weight()
    made = scheme("vidit-q:act=0,alpha=0.3")
    layout = made.layout(*w.shape)
    tensors = made.pack(w, layout, seen(x))
    noise = restore(tensors, layout) - w
    assert snr(float(w.square().sum()), float(noise.square().sum())) > 38
    peak, top = seen(x).peak, w.abs().amax(0)
    factor = top**0.7 / peak**0.3
    ratio = tensors["balance"].float() / factor
    assert np.allclose(ratio / ratio[0], 1, rtol=2e-3)


def test_balance_rescues_activations_with_a_large_channel() -> None:
    x, w = inputs(), weight()
    x[:, 7] *= 50
    plain, balanced = (error(f"vidit-q:alpha={alpha}", w, x) for alpha in ("0.0", "0.6"))
    signal = float((x @ w.T).square().mean())
    without_large = x.clone()
    without_large[:, 7] = 0
    assert 10 * np.log10(plain / balanced) > 6
    assert 10 * np.log10(signal / balanced) > 35


# low rank ---------------------------------------------------------------------------------------


def test_the_branch_takes_up_planted_outliers() -> None:
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(128, 8, generator=generator) @ torch.randn(8, 128, generator=generator)
    w = weight(128, 128) + large
    found = {}
    for text in ("svd:rank=32,group=0", "rtn:bits=4,group=0"):
        layout = scheme(text).layout(128, 128)
        noise = restore(scheme(text).pack(w, layout, None), layout) - w
        found[text] = snr(float(w.square().sum()), float(noise.square().sum()))
    assert found["svd:rank=32,group=0"] > found["rtn:bits=4,group=0"] + 5


def test_a_large_layer_is_decomposed_some_rows_at_a_time(monkeypatch) -> None:
    """Fewer rows at a time than ranks; nearly as good as the whole decomposition."""
    from dit_tools.methods import quantization
    from dit_tools.nn import low_rank_approximation

    w = weight(96, 64)
    made = scheme("svd:rank=12,group=16")
    layout = made.layout(96, 64)

    def lost() -> float:
        return float((restore(made.pack(w, layout, None), layout) - w).square().sum())

    whole = lost()
    monkeypatch.setattr(low_rank_approximation, "EXACT", 0)
    monkeypatch.setattr(quantization, "BLOCK_WEIGHTS", 7 * 64)
    assert whole != lost() < 1.05 * whole


def test_more_rounds_are_never_worse() -> None:
    w = weight(64, 64)
    errors = []
    for rounds in (1, 4):
        made = scheme(f"svd:rank=8,rounds={rounds}")
        layout = made.layout(64, 64)
        errors.append(float((restore(made.pack(w, layout, None), layout) - w).square().sum()))
    assert errors[1] <= errors[0]


def test_the_rest_is_what_packed_codes_and_branch_leave() -> None:
    """Two rounds by hand, with numpy's decomposition and the file's own way back."""
    w = weight(64, 64)
    made = scheme("svd:rank=8,group=16,rounds=2")
    layout = made.layout(64, 64)
    plain = replace(layout, rank=0)

    def decomposed(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        u, s, v = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
        up, down = u[:, :8] * s[:8] ** 0.5, v[:8] * s[:8, None] ** 0.5
        return torch.tensor(up).half(), torch.tensor(down).half()

    errors, branches = [], []
    rest = w
    for _ in range(2):
        up, down = decomposed(rest)
        lacking = w - up.float() @ down.float()
        found = scales(lacking, plain)
        codes = value(nearest(lacking, found, plain), found, plain)
        errors.append(float((lacking - codes).square().sum()))
        branches.append(up.float() @ down.float())
        rest = w - codes
    best = branches[errors.index(min(errors))]
    tensors = made.pack(w, layout, None)
    assert torch.allclose(tensors["up"].float() @ tensors["down"].float(), best, atol=2e-3)


def test_codes_of_a_round_are_gone_before_those_of_the_next_are_made(monkeypatch) -> None:
    from dit_tools.methods.quantization import svd

    plain, made_before, alive = svd._quantized, [], []

    def look(*args):
        alive.append(sum(one() is not None for one in made_before))
        tensors, error = plain(*args)
        made_before.extend(weakref.ref(tensor) for tensor in tensors.values())
        return tensors, error

    monkeypatch.setattr(svd, "_quantized", look)
    made = scheme("svd:rank=8,rounds=3")
    made.pack(weight(64, 64), made.layout(64, 64), None)
    assert len(made_before) == 8 and alive == [0, 0, 0, 0]


# vectors ----------------------------------------------------------------------------------------


def test_k_means_finds_planted_centres() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    vectors = centres[torch.arange(400) % 4] + 0.1 * torch.randn(400, 2, generator=generator)
    codebook, codes = kmeans(vectors, 4)
    assert closest(centres, codebook, 1)[1].max() < 0.01
    direct = torch.cdist(vectors, codebook).argmin(1)
    assert torch.equal(codes.long(), direct)


@pytest.mark.parametrize("text, expected", [("vq4dit:iterations=0", 9.8), ("vq4dit:bits=3,iterations=0", 15.0)])
def test_signal_to_noise_of_vector_quantized_gaussian_weights(text: str, expected: float) -> None:
    w = weight(64, 512)
    made = scheme(text)
    layout = made.layout(*w.shape)
    noise = restore(made.pack(w, layout, None), layout) - w
    found = snr(float(w.square().sum()), float(noise.square().sum()))
    assert found == pytest.approx(expected, abs=1.0)


def test_calibration_changes_some_assignments_to_their_neighbours() -> None:
    x, w = inputs(128), weight(64, 128)
    codebook, before = kmeans(w.reshape(-1, 4), 256)
    book, after = calibrate_codebook(w, codebook, seen(x).moments, 2, 200)
    near, _ = closest(w.reshape(-1, 4), codebook, 2)
    assert ((after == near[:, 0]) | (after == near[:, 1])).all()
    assert 0.005 < float((after != before).float().mean()) < 0.6
    assert torch.equal(book, book.half().float())


def test_two_bits_are_two_bits() -> None:
    made = scheme("vq4dit:iterations=0")
    layout = made.layout(64, 1024)
    assert layout.nbytes == 64 * 1024 // 4 + 256 * 4 * 2
    tensors = made.pack(weight(64, 1024), layout, None)
    codes = unpack(tensors["packed"], 8, layout.codes)
    assert torch.equal(restore(tensors, layout), tensors["codebook"].float()[codes.int()].flatten(1))
    with pytest.raises(ValueError):
        made.layout(8, 30)


# static activations -----------------------------------------------------------------------------


def test_static_scales_are_the_best_of_a_search_and_ignore_the_call() -> None:
    x, w = inputs(), weight()
    x[7] *= 20  # one token that a range over everything would serve
    made = scheme("ptq4dm")
    layout = made.layout(*w.shape)
    tensors = made.pack(w, layout, seen(x))
    scale = float(tensors["input_scale"])
    assert scale < 0.9 * float(x.abs().max()) / 127
    layer = linear_of(layout, tensors, torch.nn.Linear(64, 48, bias=False))
    alone = layer(x[:1])
    assert torch.allclose(alone, layer(x[:9])[:1], atol=1e-6)
    codes = (x[:1] / scale).round().clamp(-127, 127)
    assert torch.allclose(alone, codes @ layer.weight.T * scale, atol=1e-4)


def test_balance_is_left_out_where_it_does_harm() -> None:
    """Weights of very unequal columns: the authors' alpha moves all that into activations."""
    x = inputs()
    w = weight() * torch.logspace(0, 2, 64)[torch.randperm(64)]
    assert error("vidit-q", w, x) <= 1.02 * error("rtn:act=8", w, x)
    assert error("vidit-q", w, x) < error("vidit-q:alpha=0.3", w, x)
    x[:, 5] *= 50  # and taken where it does good
    assert error("vidit-q", weight(), x) < 0.5 * error("rtn:act=8", weight(), x)


def test_a_balance_that_holds_for_some_prompts_only_is_not_used() -> None:
    """Channels that stay quiet on one half of the prompts and fire on the other, as after GELU."""
    w, quiet, loud = weight(), inputs(seed=1), inputs(seed=2)
    columns = w.shape[1]
    quiet[:, : columns // 2] *= 0.001
    loud[:, columns // 2 :] *= 0.001
    whole = torch.cat([quiet, loud])
    both = seen(whole)
    fooled = replace(both, peak=quiet.abs().amax(0), sample=quiet)
    judged = replace(both, half=quiet.abs().amax(0), others=loud)
    one = scheme("vidit-q")
    layout = one.layout(*w.shape)
    for given, balanced in ((fooled, True), (judged, False)):
        factors = one.pack(w, layout, given)["balance"]
        assert bool((factors != 1).any()) is balanced
