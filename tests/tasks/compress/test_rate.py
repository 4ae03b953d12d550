"""Goals: what is asked for is never exceeded and nearly used."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core.errors import UsageError
from dit_tools.tasks.compress.rate import Goal, fit_bytes, fit_quality, parse_size


@pytest.mark.parametrize(
    ("text", "size"), [("20kB", 20_000), ("1.5 MB", 1_500_000), ("64KiB", 65_536), ("900", 900), ("7b", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "kB", "-3kB", "3 GB", "1e3", "0.2"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    "goal", [Goal(quality=101), Goal(bpp=0), Goal(bpp=float("nan")), Goal(min_psnr=99), Goal(quality=1, bpp=1)]
)
def test_bad_goals(goal: Goal) -> None:
    with pytest.raises(UsageError):
        goal.check()


def test_bits_a_pixel_are_of_the_whole_image() -> None:
    assert Goal(bpp=0.5).bytes_for(1000) == 62
    assert Goal(target_size="1kB").bytes_for(7) == 1000
    assert Goal(quality=5).bytes_for(7) is None


@given(st.floats(1e3, 1e8), st.floats(0.5, 2.5), st.integers(500, 10**7))
def test_the_bytes_allowed_are_used(most: float, slope: float, allowed: int) -> None:
    calls = []

    def make(setting: int) -> tuple[int, int]:
        calls.append(setting)
        return 40 + int(most * 2 ** (-slope * setting / 128)), setting

    worst, best = make(1152)[0], make(0)[0]
    calls.clear()
    if worst > allowed:
        with pytest.raises(UsageError, match="cannot be reached"):
            fit_bytes(make, allowed, 1152, 600)
        return
    size, setting = fit_bytes(make, allowed, 1152, 600)
    assert size == make(setting)[0] <= allowed
    fits_better = setting > 0 and make(setting - 1)[0] <= allowed
    assert size >= allowed * 0.97 or size == best or not fits_better
    assert len(calls) <= 40


@given(st.floats(25, 59))
def test_the_fewest_bytes_of_a_quality(wanted: float) -> None:
    def make(setting: int) -> tuple[float, int]:
        return 60 - 5 * math.log2(1 + setting / 20), setting

    quality, setting = fit_quality(make, wanted, 1152, 600)
    assert quality >= wanted
    assert quality - wanted <= 0.02 or setting == 1152 or make(setting + 1)[0] < wanted


def test_a_quality_out_of_reach() -> None:
    with pytest.raises(UsageError, match="the best is 40.00"):
        fit_quality(lambda setting: (40.0 - setting, None), 50, 1152, 600)
