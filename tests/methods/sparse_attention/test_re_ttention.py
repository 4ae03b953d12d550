"""Re-ttention's formulas against a few lines with all N x N scores."""

from __future__ import annotations

import pytest
import torch

from dit_tools.core.blocks import JOINT
from dit_tools.nn.attention_control import AttentionCall
from dit_tools.nn.reattention import Memory, correct_output, learn_statistics, window_tiling
from dit_tools.nn.window_attention import tiling
from tests.support import small

GRID, TEXT = (6, 5), 4


def product(start: int = 0, masked: bool = False, seed: int = 0) -> AttentionCall:
    """Random q, k, v over 30 image and 4 text tokens; the second row lacks a text token."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, 34, 8, generator=draw) for _ in range(3))
    mask = torch.ones(2, 1, 1, 34, dtype=torch.bool)
    mask[1, ..., 1 if start else 32] = not masked
    return AttentionCall(0, 0, 1, JOINT, 30, start, q, k, v, mask if masked else None, {})


def seen(start: int, density: float) -> torch.Tensor:
    """Which keys each query sees, (34, 34): text everything, images their window and text."""
    tiles = window_tiling(GRID, density)
    image = torch.zeros(30, 30, dtype=torch.bool)
    for token, place in enumerate(tiles.read.tolist()):
        image[token, tiles.keys[place // tiles.queries.shape[1]]] = True
    whole = torch.ones(34, 34, dtype=torch.bool)
    whole[start : start + 30, start : start + 30] = image
    return whole


@pytest.mark.parametrize("start", [0, TEXT])
@pytest.mark.parametrize("masked", [False, True])
def test_share_residual_and_correction_are_the_papers(start, masked):
    p, inside = product(start, masked), seen(start, 0.25)
    scores = p.q @ p.k.transpose(-1, -2) * 8**-0.5
    if p.mask is not None:
        scores = scores.masked_fill(~p.mask, -torch.inf)
    weights = scores.softmax(-1)
    share = (weights * inside).sum(-1, keepdim=True)
    sparse = scores.masked_fill(~inside, -torch.inf).softmax(-1) @ p.v
    output, memory = learn_statistics(p, 30, window_tiling(GRID, 0.25), 0)
    image = slice(start, start + 30)
    torch.testing.assert_close(output, weights @ p.v)
    torch.testing.assert_close(memory.share, share[:, :, image], atol=1e-5, rtol=1e-4)
    residual = (weights @ p.v - share * sparse)[:, :, image]
    torch.testing.assert_close(memory.residual, residual, atol=1e-5, rtol=1e-4)
    # on a call like the last full one, share * sparse + residual is full attention
    again = correct_output(p, 30, window_tiling(GRID, 0.25), memory)
    torch.testing.assert_close(again, output, atol=1e-5, rtol=1e-4)


def test_a_window_of_the_whole_grid_leaves_no_residual():
    p = product()
    _, memory = learn_statistics(p, 30, window_tiling(GRID, 1.0), 0)
    torch.testing.assert_close(memory.share, torch.ones_like(memory.share))
    assert memory.residual.abs().max() < 1e-5


def test_share_and_residual_each_bring_it_nearer_to_full_attention():
    """A little later, when queries have moved: band alone > share > share and residual."""
    old, tiles = product(), window_tiling(GRID, 0.1)
    _, memory = learn_statistics(old, 30, tiles, 0)
    draw = torch.Generator().manual_seed(9)
    q, k, v = (x + 0.2 * torch.randn(x.shape, generator=draw) for x in (old.q, old.k, old.v))
    now = old.having(q=q, k=k, v=v)
    ones, zeros = torch.ones_like(memory.share), torch.zeros_like(memory.residual)
    choices = [(ones, zeros), (memory.share, zeros), (memory.share, memory.residual)]
    errors = [(correct_output(now, 30, tiles, Memory(*given, 0)) - now.run()).norm() for given in choices]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (1, 3)])
def test_every_token_is_read_from_a_tile_that_holds_it(grid):
    for density in (0.01, 0.25, 1.0):
        tiles = window_tiling(grid, density)
        assert tiles.queries.flatten()[tiles.read].tolist() == list(range(grid[0] * grid[1]))
        for queries, keys in zip(tiles.queries.tolist(), tiles.keys.tolist(), strict=True):
            assert set(queries) <= set(keys) and len(set(keys)) == len(keys)


def test_shifted_tiles_read_back_for_every_shift():
    for shift in ((0, 0), (1, 2), (4, 3)):
        tiles = tiling((5, 6), (3, 3), (3, 3), shift)
        assert tiles.queries.flatten()[tiles.read].tolist() == list(range(30))


def test_calls_between_full_ones_are_sparse():
    plan = small.plan(attention="re-ttention:density=0.0625,warmup=0.2,refresh=4", steps=10)
    _, run = small.final(small.pixart(), small.conditions(), plan)
    full = 4  # calls 0, 1, 5, 9
    tiles = window_tiling((4, 4), 0.0625)
    assert run.count["attention pairs saved"] == 6 * 4 * (256 - tiles.pairs)
    assert run.count["attention pairs"] == 4 * (full * 256 + 6 * tiles.pairs)
