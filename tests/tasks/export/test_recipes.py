"""What replaces diffusers' own functions during an export is equal to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb

from dit_tools.core.errors import UnsupportedError
from dit_tools.models.backends.onnx_network import graph_inputs
from dit_tools.models.backends.torch_network import TorchNetwork
from dit_tools.models.families import _onnx, families
from dit_tools.models.family import Family
from dit_tools.models.loading.from_pipeline import family_of
from dit_tools.models.onnx_recipe import Sizes
from dit_tools.tasks.export.graphs import example_call
from tests.support.exports import FAMILIES

Pipes = Callable[[str], Any]


def test_every_family_has_a_recipe() -> None:
    assert all(family({}, {}, {}).onnx().dynamic["sample"] for family in families().values())


def test_a_family_without_a_recipe_is_refused() -> None:
    class Wan(Family):
        name = "wan"
        encode = inputs = None  # type: ignore[assignment]

    with pytest.raises(UnsupportedError, match="family wan have no recipe"):
        Wan({}, {}, {}).onnx()


# Tokens that fill a multiple of 32 and that do not; texts of one token; a batch of one.
CASES = (Sizes(1, 4, 8, 1), Sizes(3, 5, 7, 33), Sizes(2, 8, 8, 64))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_module_to_trace_is_the_transformer(name: str, case: Sizes, pipes: Pipes) -> None:
    pipe = pipes(name)
    family = family_of(pipe)
    chosen = family.onnx()
    unit = family.vae_scale * family.patch
    sides = (family.default_size,) * 2 if chosen.fixed_size else (case.height, case.width)
    height, width = sides if chosen.fixed_size else (side * unit for side in sides)
    sizes = Sizes(case.batch, height, width, case.text)
    given = example_call(family, chosen, sizes, t=0.6, seed=3)
    expected = TorchNetwork(pipe.transformer)(**given)
    arrays = graph_inputs(given)
    with chosen.prepared(pipe.transformer) as module, torch.no_grad():
        got = module(**{k: torch.as_tensor(v) for k, v in arrays.items() if k in chosen.dynamic})
    assert got.shape == expected.shape
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-6
    again = TorchNetwork(pipe.transformer)(**given)
    assert torch.equal(again, expected), "the transformer is not what it was before the export"


def test_rotation_is_multiplication_by_complex_numbers() -> None:
    x, angles = torch.randn(2, 5, 3, 8), torch.randn(5, 4)
    turns = torch.polar(torch.ones_like(angles), angles)
    got = _onnx.rotate(x, _onnx.table(turns), head_axis=1)
    expected = apply_rotary_emb(x, turns[None].expand(2, -1, -1), use_real=False)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_half_precision_is_turned_in_float32() -> None:
    x, angles = torch.randn(1, 5, 1, 8), torch.randn(5, 4)
    pairs = torch.stack([angles.cos(), angles.sin()], dim=-1)
    half = _onnx.rotate(x.half(), pairs, head_axis=1)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), _onnx.rotate(x, pairs, 1), rtol=2e-3, atol=2e-3)


def test_grid_is_row_by_row() -> None:
    assert _onnx.grid(2, 3, "cpu").tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_patches_and_back() -> None:
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    tokens = _onnx.patches(x, 2, 3, 2)
    assert tokens.shape == (2, 6, 12)
    first = [x[0, c, i, j].item() for i in (0, 1) for j in (0, 1) for c in range(3)]
    assert tokens[0, 0].tolist() == first
    assert torch.equal(_onnx.image_of(tokens, 2, 3, 2), x)


@pytest.mark.parametrize(("family", "key"), [("sana", "guidance_embeds"), ("qwenimage", "zero_cond_t")])
def test_variants_that_the_family_cannot_call_are_refused(family: str, key: str) -> None:
    recipe = families()[family]({}, {}, {}).onnx()
    assert recipe.refusal({key: True}) == key
    assert recipe.refusal({key: False}) == ""


def test_conditions_are_drawn_again_the_same(pipes: Pipes) -> None:
    family = family_of(pipes("sd3"))
    sizes = Sizes(2, 16, 16, 4)
    made = [family.onnx().condition(family, sizes, np.random.default_rng(0)) for _ in "ab"]
    assert all(np.array_equal(made[0][key], made[1][key]) for key in made[0])
    assert made[0].keys() == {"encoder_hidden_states", "pooled_projections"}
