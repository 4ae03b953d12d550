"""The grammar of --seed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core.errors import UsageError
from dit_tools.jobs.seeds import MAX_SEED, parse_seeds


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("42", (42,)),
        ("1,2,3", (1, 2, 3)),
        ("10..13", (10, 11, 12, 13)),
        ("7..7", (7,)),
        (" 1 , 5..6,1", (1, 5, 6, 1)),
        (str(MAX_SEED), (MAX_SEED,)),
    ],
)
def test_values(text, seeds):
    assert parse_seeds(text) == seeds


def test_random_seeds_are_drawn_anew_within_32_bits():
    drawn = parse_seeds("-1," * 99 + "-1")
    assert len(set(drawn)) > 95 and all(0 <= seed < 2**32 for seed in drawn)
    assert max(drawn) > 2**28
    mixed = parse_seeds("5,-1,8..9")
    assert (mixed[0], mixed[2:]) == (5, (8, 9))


@pytest.mark.parametrize(
    "text, word",
    [
        ("", "missing"),
        ("1,", "missing"),
        ("x", "no seed"),
        ("-2", "no seed"),
        ("1.5", "no seed"),
        ("1...3", "no seed"),
        ("-1..3", "no seed"),
        ("９", "no seed"),
        ("1_0", "no seed"),
        ("9..1", "did you mean 1..9"),
        (str(MAX_SEED + 1), "too large"),
        ("9" * 4000, "no seed"),
        ("0..100000", "more than 100000"),
        ("1..60000,1..60000", "more than"),
        ("0..99999,-1", "more than"),
    ],
)
def test_refusals_name_the_option(text, word):
    with pytest.raises(UsageError, match=word) as caught:
        parse_seeds(text)
    assert "--seed" in str(caught.value) and len(str(caught.value)) < 300


@given(st.text(alphabet="0123456789.,- x", max_size=20))
def test_nothing_but_usage_errors(text):
    try:
        seeds = parse_seeds(text)
    except UsageError:
        return
    assert seeds and all(0 <= seed <= MAX_SEED for seed in seeds)
