"""DiffuseHigh: wavelets, the climb, and what the low band is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.methods.highres._bands import FILTERS, _low, resize_bicubic, sharpen, with_low_band
from dit_tools.sampling.images import ImageBatch
from dit_tools.sampling.sampler import Sampler
from tests.support import small
from tests.support.loop import sample, start


class Plain:
    """A codec whose pixels are latents, but for their kind of array."""

    def decode(self, x: Any) -> Any:
        return x.numpy()

    def encode(self, pixels: Any) -> Any:
        return torch.as_tensor(pixels)


def scene(highres: str, size: tuple[int, int] = (16, 16), steps: int = 10) -> ImageBatch:
    """An image of a model whose own size is 8 x 8."""
    model = replace(small.pixart(), codec=Plain())
    sampler = Sampler(model, small.plan(steps=steps, highres=highres), size)
    return ImageBatch(sampler, lambda _: small.conditions(), (3,))


def final(made: ImageBatch) -> tuple[Any, list[Any]]:
    found = list(made.sampler.plan.highres.steps(made))
    return found[-1].x, found


@pytest.mark.parametrize("wave", FILTERS)
def test_wavelets_are_orthogonal_and_keep_constants_and_slopes(wave):
    low = _low(32, wave, 1)
    np.testing.assert_allclose(low @ low.T, np.eye(16), atol=1e-9)
    np.testing.assert_allclose(low @ np.ones(32), np.full(16, 2**0.5), atol=1e-9)
    if wave == "db4":  # four vanishing moments: cubics inside lie in the low band
        cubic = np.linspace(-1, 1, 32) ** 3
        np.testing.assert_allclose((low.T @ low @ cubic)[8:-8], cubic[8:-8], atol=1e-6)


@pytest.mark.parametrize("level", [1, 2])
def test_the_low_band_becomes_the_guides_and_the_rest_stays(level):
    draw = np.random.default_rng(0)
    y, g = draw.random((2, 2, 3, 16, 24))
    made = with_low_band(y, g, "haar", level)
    side = 2**level
    blocks = [x.reshape(2, 3, 16 // side, side, 24 // side, side).mean((3, 5)) for x in (made, g)]
    np.testing.assert_allclose(*blocks, atol=1e-9)
    rest = with_low_band(made, y, "haar", level)
    np.testing.assert_allclose(rest, y, atol=1e-9)


def test_sides_that_cannot_be_halved_are_refused():
    x = np.zeros((1, 3, 12, 20))
    with pytest.raises(UsageError, match="20x12 cannot be halved 3 times; use a smaller level"):
        with_low_band(x, x, "haar", 3)


def test_enlarging_and_sharpening():
    flat = np.full((1, 2, 4, 6), 0.5, np.float32)
    assert resize_bicubic(flat, (8, 12)).shape == (1, 2, 8, 12)
    np.testing.assert_allclose(sharpen(resize_bicubic(flat, (8, 12)), 1.0), 0.5, atol=1e-6)
    edge = np.zeros((1, 1, 6, 6), np.float32) + 0.25
    edge[..., 3:] = 0.75
    sharp = sharpen(edge, 1.0)
    assert sharp[0, 0, 0, 3] > 0.75 and sharp[0, 0, 0, 2] < 0.25


@pytest.mark.parametrize(
    ("size", "text", "expected"),
    [
        ((8, 8), "", [(8, 8)]),
        ((6, 4), "", [(6, 4)]),
        ((16, 16), "", [(8, 8), (16, 16)]),
        ((32, 32), "", [(8, 8), (16, 16), (32, 32)]),
        ((32, 32), "growth=4", [(8, 8), (32, 32)]),
        ((16, 8), "", [(8, 4), (16, 8)]),
        ((12, 12), "", [(8, 8), (12, 12)]),
        ((32, 32), "share=1", [(32, 32)]),
    ],
)
def test_sizes_grow_step_by_step(size, text, expected):
    made = scene(f"diffusehigh:{text}", size)
    assert made.sampler.plan.highres.sizes(made) == expected


def test_it_draws_small_enlarges_and_draws_the_rest():
    x, found = final(scene("diffusehigh:share=0.3,guided=0"))
    assert x.shape == (1, 4, 16, 16)
    assert [step.index for step in found] == list(range(13))
    assert found[0].total == 10 and found[-1].total == 13
    assert [step.x.shape[-1] for step in found] == [8] * 10 + [16] * 3


def test_without_the_low_band_it_is_sdedit():
    made = scene("diffusehigh:share=0.3,guided=0,sharpness=0")
    ours, found = final(made)
    g = torch.as_tensor(resize_bicubic(found[9].x.numpy(), (16, 16)))
    x, noise = start(made.sampler.model, made.sampler.plan, (4, 16, 16), (3,))
    times = made.sampler.plan.times(made.sampler.model, x.shape)[7:]
    x = (1 - times[0]) * g + times[0] * x
    *_, last = sample(made.sampler.model, small.conditions(), x, made.sampler.plan, noise, times)
    torch.testing.assert_close(ours, last.x)


def test_the_low_band_stays_near_the_small_picture():
    def drift(guided: int) -> float:
        made = scene(f"diffusehigh:share=0.5,guided={guided},wave=haar,sharpness=0")
        x, found = final(made)
        g = resize_bicubic(found[9].x.numpy(), (16, 16))
        gap = with_low_band(x.numpy(), g, "haar", 1) - x.numpy()
        return float((gap**2).mean())

    none, some, all_ = (drift(guided) for guided in (0, 3, 5))
    assert none > some > all_ and all_ < 1e-9


def test_solvers_that_cannot_start_midway_are_refused():
    made = scene("diffusehigh")
    plan = replace(made.sampler.plan, solver=spec.parse("solvers", "diffusers"))
    with pytest.raises(Exception, match="cannot start midway"):
        list(plan.highres.steps(replace(made, sampler=replace(made.sampler, plan=plan))))
