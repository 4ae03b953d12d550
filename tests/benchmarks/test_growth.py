"""The arithmetic of benchmarks/growth.py, and that it runs on a tiny network."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from benchmarks.growth import Row, measure, plot, side_of, table, with_slope


def test_the_exponent_of_growth():
    first = Row("tokens", 256, 1, "none", 2.0, 1.0)
    grown = with_slope(Row("tokens", 1024, 1, "none", 32.0, 1.0), [first])
    assert with_slope(first, []).slope is None
    assert grown.slope == pytest.approx(2.0)
    assert with_slope(Row("pictures", 256, 2, "none", 4.0, 1.0), [first]).slope is None


def test_only_squares_can_be_asked_for():
    assert side_of(256) == 32
    with pytest.raises(ValueError, match="200 tokens: not a square"):
        side_of(200)


def test_it_measures_a_tiny_network_and_draws_it():
    rows = measure((16, 64), (1, 2), ("none", "output:interval=3,warmup=1"), 4, 1, 1, 16)
    assert [(r.growth, r.tokens, r.pictures) for r in rows[::2]] == [
        ("tokens", 16, 1),
        ("tokens", 64, 1),
        ("pictures", 16, 1),
        ("pictures", 16, 2),
    ]
    assert {r.computed for r in rows} == {1.0, 0.5} and all(r.seconds > 0 for r in rows)
    assert len(table(rows).splitlines()) == 9
    lines = ET.fromstring(plot(rows)).findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4


def test_a_size_that_took_its_seconds_gets_no_further_round(capsys):
    measure((16,), (), ("none",), 2, 3, 1, 16, budget=0.0)
    measure((16,), (), ("none",), 2, 3, 1, 16)
    assert capsys.readouterr().err.splitlines() == [
        "tokens: 16 tokens, 1 images, 1 rounds",
        "tokens: 16 tokens, 1 images, 3 rounds",
    ]
