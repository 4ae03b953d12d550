"""How large a result becomes, and by which passes."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.core.errors import InputError, UsageError
from dit_tools.tasks.photo.superres import Goal, Request, chosen, goal, reduced
from tests.support import photographs


@pytest.mark.parametrize(
    ("given", "size", "wanted"),
    [
        ({}, (10, 20), (40, 80)),
        ({"scale": 1.5}, (10, 21), (15, 32)),
        ({"size": "100x100"}, (10, 20), (50, 100)),
        ({"size": "100X30"}, (10, 20), (30, 60)),
        ({"megapixels": 0.02}, (50, 50), (141, 141)),
    ],
)
def test_the_size_of_the_result(given, size, wanted) -> None:
    assert goal(Request([], **given)).of(size) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scale": 1.0}, "only enlarges"),
        ({"scale": 0.5}, "only enlarges"),
        ({"scale": float("nan")}, "only enlarges"),
        ({"scale": 65.0}, "up to 64"),
        ({"size": "12"}, "WIDTHxHEIGHT"),
        ({"size": "0x5"}, "WIDTHxHEIGHT"),
        ({"megapixels": 0.0}, "out of range"),
        ({"megapixels": 1e9}, "out of range"),
        ({"scale": 2.0, "size": "3x4"}, "exclude each other"),
    ],
)
def test_a_size_that_makes_no_sense_is_refused(given, said) -> None:
    with pytest.raises(UsageError, match=said):
        goal(Request([], **given))


def test_an_image_that_is_large_already_or_would_be_too_large() -> None:
    with pytest.raises(InputError, match="is 400x300 already"):
        Goal(box=(200, 200)).of((300, 400))
    with pytest.raises(InputError, match="is 400x300 already"):
        Goal(box=(400, 300)).of((300, 400))
    with pytest.raises(InputError, match="over 200 megapixels"):
        Goal(scale=8.0).of((3000, 4000))


@pytest.mark.parametrize(
    ("factor", "passes"), [(1.1, (2,)), (2, (2,)), (2.5, (3,)), (4, (4,)), (5, (3, 2)), (8, (4, 2)), (64, (4, 4, 4))]
)
def test_the_passes_with_the_fewest_pixels(factor, passes) -> None:
    assert chosen((10, 10), (round(10 * factor), round(10 * factor)), (2, 3, 4)) == passes


def test_reducing_keeps_hidden_colours_out() -> None:
    image = np.full((20, 20, 4), (200, 100, 50, 255), np.uint8)
    image[:, :11] = 0
    made = reduced(image, (10, 10), 8)
    visible = made[..., 3] > 0
    assert abs(made[visible][:, :3].astype(int) - (200, 100, 50)).max() <= 1 and visible.sum() == 50


def test_reducing_to_another_depth() -> None:
    image = photographs.samples(40, 60, 3, 16)
    made = reduced(image, (20, 30), 8)
    means = image.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3)) / 257
    assert made.dtype == np.uint8 and abs(made - means).max() <= 0.51
