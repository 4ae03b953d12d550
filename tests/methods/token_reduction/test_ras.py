"""Which tokens region-adaptive sampling leaves out, and what becomes of them."""

from __future__ import annotations

import pytest
import torch

from dit_tools.core import spec
from dit_tools.methods.token_reduction.ras import select_skipped, token_scores
from tests.support import small


def ras(text: str = ""):
    return spec.parse("token_reduction", f"ras:{text}" if text else "ras")


def test_a_token_counts_by_the_deviation_over_channels_of_its_cells():
    velocity = torch.randn(2, 4, 6, 4, generator=torch.Generator().manual_seed(0))
    m = token_scores(velocity, (3, 2), "std")
    cell = velocity[1, :, 2:4, 2:4]  # row 1, column 1: token 3
    expected = cell.var(0, correction=0).sqrt().mean()
    assert m.shape == (2, 6) and m[1, 3] == pytest.approx(expected.item(), rel=1e-5)
    norm = token_scores(velocity, (3, 2), "norm")
    assert norm[1, 3] == pytest.approx(cell.norm(dim=0).mean().item(), rel=1e-5)


@pytest.mark.parametrize(("high", "expected"), [(1.0, {4, 5, 6, 7}), (0.0, {0, 1, 2, 3}), (0.5, {0, 1, 6, 7})])
def test_tokens_are_left_out_from_both_ends_of_the_scores(high, expected):
    score = torch.arange(1.0, 9.0)[None]
    left = select_skipped(score, torch.zeros(1, 8), ras(f"high={high}"))
    assert set(left[0].tolist()) == expected


@pytest.mark.parametrize("high", [0.0, 0.3, 1.0])
def test_left_out_tokens_come_back_and_without_kappa_they_do_not(high):
    score = torch.linspace(1, 3, 16)[None]
    for kappa, starved in ((0.1, False), (0.0, True)):
        drops, away, longest = torch.zeros(1, 16), torch.zeros(16), torch.zeros(16)
        for _ in range(80):
            left = select_skipped(score, drops, ras(f"kappa={kappa},high={high}"))[0]
            drops[0, left] += 1
            out = torch.zeros(16).index_fill(0, left, 1.0)
            away = (away + 1) * out
            longest = torch.maximum(longest, away)
        assert bool(longest.max() == 80) == starved
        assert starved or longest.max() < 30


def test_left_out_tokens_keep_their_raw_output():
    plan = small.plan(tokens="ras:ratio=0.25,start=2,refresh=0", steps=6)
    generator, _ = small.steps(small.pixart(), small.conditions(), plan)
    raws = [step.prediction.raw for step in generator]
    same = [int((raws[i] == raws[i - 1]).all(1).sum()) for i in range(1, 6)]
    assert same == [0, 48, 48, 48, 48]  # of 64 latents, three quarters


def test_all_tokens_are_computed_at_the_beginning_and_when_refreshed():
    plan = small.plan(tokens="ras:ratio=0.5,start=3,refresh=4", steps=12)
    generator, run = small.steps(small.pixart(), small.conditions(), plan)
    made = []
    for _ in generator:
        made.append(run.count["tokens computed"] - sum(made))
    assert made == [16, 16, 16, 8, 8, 8, 8, 16, 8, 8, 8, 16]


def test_more_tokens_are_nearer_to_the_plain_picture():
    model, given = small.pixart(), small.conditions()
    plain, _ = small.final(model, given, small.plan())
    errors = []
    for ratio in (0.25, 0.5, 0.9):
        made, _ = small.final(model, given, small.plan(tokens=f"ras:ratio={ratio}"))
        errors.append(float((made - plain).norm()))
    assert errors[0] > errors[1] > errors[2] > 0


def test_a_second_order_solver_goes_with_it():
    plan = small.plan(tokens="ras:start=2", solver="heun", steps=6)
    made, run = small.final(small.pixart(), small.conditions(), plan)
    assert made.isfinite().all() and run.count["tokens skipped"] > 0
