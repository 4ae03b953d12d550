"""Axes of a sweep and their product."""

import re

import pytest

from dit_tools.core.errors import UsageError
from dit_tools.jobs.sweep import parse_axes, parse_axis, points

FORMAT = "format=png,webp"


@pytest.mark.parametrize(
    "text, option, values",
    [
        ("cfg=3,5,7", "cfg_scale", (3.0, 5.0, 7.0)),
        ("--steps=10, 20", "steps", (10, 20)),
        ("seed=1..3,7", "seed", ("1", "2", "3", "7")),
        ("size=64x32,96", "size", ((64, 32), (96, 96))),
        ("negative=a, b|c", "negative_prompt", ("a, b", "c")),
        (
            "cache=none,taylorseer:order=1,interval=3,first-block",
            "cache",
            ("none", "taylorseer:order=1,interval=3", "first-block"),
        ),
        ("guidance=cfg:scale=2|cfg:scale=3", "guidance", ("cfg:scale=2", "cfg:scale=3")),
        ("transparent=true,false", "transparent", (True, False)),
    ],
)
def test_values_are_read_with_the_options_own_reader(text, option, values):
    axis = parse_axis(text)
    assert (axis.option, axis.values) == (option, values) and len(axis.labels) == len(values)


@pytest.mark.parametrize(
    "text, message",
    [
        ("cfg", "--sweep cfg: not KEY=VALUE,VALUE; for example --sweep cfg=3,5,7"),
        ("cfg=", "--sweep cfg=: not KEY=VALUE,VALUE; for example --sweep cfg=3,5,7"),
        ("cgf=3", "--sweep cgf=3: no option 'cgf'; did you mean 'cfg'?"),
        ("steps=1,x", "--sweep steps=1,x: --steps x: not a whole number; give 1..1000"),
        ("steps=1,1", "--sweep steps=1,1: a value is given twice; give it once"),
        ("solver=eulr", "--solver: no method 'eulr'; did you mean 'euler'?"),
        (FORMAT, f"--sweep {FORMAT}: format cannot be swept; give it as an option"),
    ],
)
def test_bad_axes(text, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        parse_axis(text)


def test_the_last_axis_changes_fastest():
    axes = parse_axes(["cfg=1,2", "size=8x16,32"])
    made = [(point.place, point.options) for point in points(axes)]
    assert made == [
        ((0, 0), {"cfg_scale": 1.0, "width": 8, "height": 16}),
        ((0, 1), {"cfg_scale": 1.0, "width": 32, "height": 32}),
        ((1, 0), {"cfg_scale": 2.0, "width": 8, "height": 16}),
        ((1, 1), {"cfg_scale": 2.0, "width": 32, "height": 32}),
    ]
    assert axes[0].label(1) == "cfg 2"


def test_no_axes_are_one_empty_point():
    assert [point.options for point in points(())] == [{}]


@pytest.mark.parametrize("texts", [("cfg=1", "cfg_scale=2"), ("size=8", "width=9")])
def test_an_option_is_swept_once(texts):
    with pytest.raises(UsageError, match="is swept twice"):
        parse_axes(texts)
