"""Forward arguments become a graph's inputs; sizes and types that do not fit are told apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dit_tools.core.errors import UnsupportedError
from dit_tools.core.size import Size
from dit_tools.models.backends.onnx_network import OnnxCodec, OnnxNetwork, OnnxTextEncoder, graph_inputs
from dit_tools.models.family import ConditionRequest
from dit_tools.models.loading.resolve import resolve


class Session:
    """Doubles ``x``, adds ``shift``, and remembers what it was called with."""

    def __init__(self, **inputs: Any) -> None:
        self.inputs, self.calls = inputs, []

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name=k, shape=s, type=t) for k, (s, t) in self.inputs.items()]

    def run(self, names: Any, feeds: dict[str, Any]) -> list[Any]:
        self.calls.append(feeds)
        return [feeds["x"] * 2 + feeds.get("shift", 0)]


FLOAT, INT = "tensor(float)", "tensor(int64)"


def test_dictionaries_lie_open_and_lists_of_numbers_are_integers() -> None:
    made = graph_inputs({"a": {"b": np.ones(2), "c": np.zeros(3)}, "sizes": [[(1, 4, 6)]] * 2})
    assert set(made) == {"b", "c", "sizes"}
    assert made["sizes"].dtype == np.int64 and made["sizes"].tolist() == [[[1, 4, 6]]] * 2


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_lists_of_unequal_arrays_are_padded(kind: Any) -> None:
    texts = [kind(np.ones((n, 2), np.float32)) for n in (3, 1)]
    made = graph_inputs({"cap": texts})
    assert made["cap"].shape == (2, 3, 2) and made["cap"].dtype == np.float32
    assert made["cap"].sum(axis=(1, 2)).tolist() == [6, 2]
    assert made["cap_lengths"].tolist() == [3, 1]


def test_half_precision_tensors_become_float32_and_masks_stay() -> None:
    made = graph_inputs({"x": torch.ones(2).bfloat16(), "mask": torch.tensor([True, False])})
    assert (made["x"].dtype, made["mask"].dtype) == (np.float32, np.bool_)


def test_inputs_get_the_types_of_the_graph_and_others_are_left_out() -> None:
    session = Session(x=(["batch", 2], FLOAT), mask=(["batch"], INT))
    out = OnnxNetwork(session)(x=np.ones((3, 4))[:, ::2], mask=np.array([True, False, True]), other=np.ones(1))
    assert out.tolist() == [[2, 2]] * 3
    (feeds,) = session.calls
    assert set(feeds) == {"x", "mask"}
    assert (feeds["x"].dtype, feeds["mask"].dtype) == (np.float32, np.int64)
    assert feeds["x"].flags.c_contiguous


def test_another_size_is_refused_by_name() -> None:
    network = OnnxNetwork(Session(x=(["batch", 4, 8, 8], FLOAT)))
    with pytest.raises(UnsupportedError, match="--size: .*batch x 4 x 8 x 8.*3 x 4 x 8 x 16") as error:
        network(x=np.ones((3, 4, 8, 16)))
    assert error.value.hint


def test_one_by_one_shares_what_has_no_batch() -> None:
    session = Session(x=(["batch", 2], FLOAT), shift=([2], FLOAT))
    x, shift = np.arange(6.0).reshape(3, 2), np.array([10.0, 20.0])
    out = OnnxNetwork(session, one_by_one=True)(x=x, shift=shift)
    assert np.array_equal(out, x * 2 + shift)
    assert [feeds["x"].shape for feeds in session.calls] == [(1, 2)] * 3


def test_videos_of_one_frame() -> None:
    family = SimpleNamespace(frame_axis=True, to_vae=lambda x: x[:, :, None], from_vae=lambda z: z[:, :, 0])

    class Decoder:
        def run(self, names: Any, feeds: dict[str, Any]) -> list[Any]:
            return [np.concatenate([feeds["latents"]] * 3, axis=1)]

    class Encoder:
        def run(self, names: Any, feeds: dict[str, Any]) -> list[Any]:
            assert feeds["pixels"].shape == (2, 3, 1, 4, 4) and feeds["pixels"].dtype == np.float32
            return [feeds["pixels"][:, :1]]

    codec = OnnxCodec(Decoder(), Encoder, family)  # type: ignore[arg-type]
    assert codec.decode(np.zeros((2, 1, 4, 4), np.float32)).tolist() == np.full((2, 3, 4, 4), 0.5).tolist()
    assert (codec.encode(np.ones((2, 3, 4, 4))) == 1).all()


def test_pixart_alpha_is_told_the_size() -> None:
    class States:
        def run(self, names: Any, feeds: dict[str, Any]) -> list[Any]:
            return [np.zeros((*feeds["input_ids"].shape, 8), np.float32)]

    tokenizer = resolve("emoji").path / "tokenizer/tokenizer.json"
    encode = OnnxTextEncoder(tokenizer, States(), 16, micro=True)
    made = encode(ConditionRequest(("a", "b"), ("", ""), Size(32, 64)))
    for branch in ("cond", "uncond"):
        assert made[branch]["resolution"].tolist() == [[32, 64]] * 2
        assert made[branch]["aspect_ratio"].tolist() == [[0.5]] * 2
