"""Shifted windows against masked attention, and what their shifts are for."""

from __future__ import annotations

import torch
from torch.nn import functional

from dit_tools.core import spec
from dit_tools.nn.attention_control import AttentionCall
from dit_tools.nn.window_attention import tiling, windowed_product
from tests.methods.sparse_attention.test_re_ttention import product
from tests.support import small


def test_it_is_attention_masked_to_windows():
    p, tiles = product(start=4), tiling((6, 5), (3, 3), (3, 3), (1, 1))
    mask = torch.ones(34, 34, dtype=torch.bool)
    image = torch.zeros(30, 30, dtype=torch.bool)
    for token, place in enumerate(tiles.read.tolist()):
        image[token, tiles.keys[place // 9]] = True
    mask[4:, 4:] = image
    expected = functional.scaled_dot_product_attention(p.q, p.k, p.v, attn_mask=mask)
    torch.testing.assert_close(windowed_product(p, 30, tiles), expected)


def test_four_windows_cost_a_fourth():
    plan = small.plan(attention="msw:windows=2,share=1", steps=3)
    _, run = small.final(small.pixart(), small.conditions(), plan)
    pairs, saved = run.count["attention pairs"], run.count["attention pairs saved"]
    assert pairs == 4 * 3 * 64 and pairs + saved == 4 * 3 * 256


def test_the_middle_blocks_keep_full_attention():
    plan = small.plan(attention="msw:windows=2,share=0.5", steps=1)
    _, run = small.final(small.pixart(), small.conditions(), plan)
    assert run.count["attention pairs"] == 2 * 64  # two of four blocks


def test_shifts_take_all_quarters_and_follow_no_clock():
    def rolls(text):
        made = spec.parse("sparse_attention", text)
        return [made._roll(call, site) for call in range(30) for site in range(3)]

    assert set(rolls("msw")) == {0, 1, 2, 3}
    assert rolls("msw") == rolls("msw")
    assert set(rolls("msw:shift=false")) == {0}


def test_shifts_spread_seams():
    """Far from borders of windows no pair is always cut: averaged maps have no fixed seam."""
    q, k, v = (torch.ones(1, 1, 64, 4) for _ in range(3))
    v = torch.arange(64.0).reshape(1, 1, 64, 1).expand(-1, -1, -1, 4)
    p = AttentionCall(0, 0, 1, "self", 64, 0, q, k, v, None, {})

    def seam(shifts):
        made = [windowed_product(p, 64, tiling((8, 8), (4, 4), (4, 4), (s, s))) for s in shifts]
        columns = torch.stack(made).mean(0)[0, 0, :, 0].reshape(8, 8)
        return (columns[:, 4] - columns[:, 3]).abs().mean()

    assert seam([0, 1, 2, 3]) < seam([0]) / 2
