"""Frequencies against their formulas and against diffusers' own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed

from dit_tools.core import spec
from dit_tools.core.run import RunState
from dit_tools.methods.highres._positions import attention_factor, interpolate_frequencies, ntk, trained_frequencies


def made(text: str, scale: float, t: float = 0.5, dim: int = 16, native: int = 64) -> list[float]:
    return spec.parse("highres", text).frequencies(dim, 10000.0, scale, native, t)


def test_ntk_keeps_the_highest_frequency_and_divides_the_lowest():
    trained, ours = trained_frequencies(16, 10000.0), made("ntk", 2.5)
    assert ours[0] == trained[0] == 1.0
    assert ours[-1] == pytest.approx(trained[-1] / 2.5, rel=1e-12)
    assert all(a <= b for a, b in zip(ours, trained, strict=True))
    assert ntk(2, 10000.0, 4.0) == [1.0]


def test_yarn_interpolates_long_waves_and_keeps_short_ones():
    trained = trained_frequencies(16, 10000.0)
    ours = made("yarn:fast=4,slow=1", 2.0, native=64)
    turns = [64 * theta / (2 * math.pi) for theta in trained]
    for theta, new, r in zip(trained, ours, turns, strict=True):
        if r >= 4:
            assert new == theta
        elif r <= 1:
            assert new == theta / 2
        else:
            assert theta / 2 < new < theta
    assert spec.parse("highres", "yarn").length(2.0) == pytest.approx(0.1 * math.log(2) + 1)


def test_time_aware_is_interpolation_and_then_another_base_as_in_diffusers():
    early, late = made("time-aware", 1.5, t=0.9), made("time-aware", 1.5, t=0.5)
    assert early == interpolate_frequencies(16, 10000.0, 1.5)
    for ours, factors in ((early, {"linear_factor": 1.5}), (late, {"ntk_factor": 1.5})):
        options: dict[str, Any] = {"freqs_dtype": torch.float64, **factors}
        theirs = get_1d_rotary_pos_embed(16, 2, **options)
        angles = torch.tensor(ours, dtype=torch.float64)
        torch.testing.assert_close(theirs[1], torch.polar(torch.ones_like(angles), angles))
    assert made("time-aware:watershed=1", 1.5, t=0.01) == early


def test_scales_are_per_axis_or_one_for_the_area_and_never_below_one():
    wide = RunState((1.0, 0.0), 1, (32, 128), (64, 64))
    assert spec.parse("highres", "ntk").scales(wide) == (1.0, 2.0)
    assert spec.parse("highres", "time-aware").scales(wide) == (1.0, 1.0)
    assert spec.parse("highres", "ntk:scale=3").scales(wide) == (3.0, 3.0)


def test_attention_grows_with_the_log_of_the_tokens():
    assert attention_factor(RunState((1.0, 0.0), 1, (64, 64), (64, 64))) == 1
    factor = attention_factor(RunState((1.0, 0.0), 1, (128, 128), (64, 64)))
    assert factor == pytest.approx(math.sqrt(math.log(16384) / math.log(4096)))


def test_proportional_attention_multiplies_logits():
    from dit_tools.nn.attention_control import control_attention
    from dit_tools.nn.positions import sharpen_attention
    from tests.support import small

    model, seen = small.pixart(), []
    run = RunState((1.0, 0.0), 1, (4, 4), (4, 4))
    inputs = model.family.inputs(torch.randn(1, 4, 8, 8), 0.5, small.conditions()["cond"])

    def look(call):
        seen.append(call.q)
        return call.run()

    blocks = model.network.blocks()[:1]
    with control_attention(blocks, lambda: 16, look, "--x", name="looking"):
        model.network(**inputs)
    with sharpen_attention(blocks, run, 1.25, "--x"):
        with control_attention(blocks, lambda: 16, look, "--x", name="looking"):  # outside: sees the result
            model.network(**inputs)
    torch.testing.assert_close(seen[0] * 1.25, seen[1])
