"""Values of options, however they are spelt, and every wrong one with its remedy."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core.errors import DitError, UsageError
from dit_tools.jobs.options import OPTIONS, has_scale, read_values, takes_scale, without_scale

GOOD = {
    "steps": ("30", 30),
    "cfg": (3, 3.0),
    "negative": ("a", {"negative_prompt": "a"}),
    "size": ("64x32", {"width": 64, "height": 32}),
    "vae-tiling": ("yes", {"vae_tiling": True}),
    "background": ("red", "#ff0000"),
    "seed": ([1, 2], "1,2"),
    "lora": ("a:0.5", ("a:0.5",)),
    "format": ("jpg", "jpeg"),
    "solver": ("heun", "heun"),
    "offload": ("model", "model"),
}


@pytest.mark.parametrize("key", GOOD)
def test_values_are_read(key):
    value, expected = GOOD[key]
    name = {"cfg": "cfg_scale"}.get(key, key.replace("-", "_"))
    made = expected if isinstance(expected, dict) else {name: expected}
    assert read_values({key: value}) == made


def test_a_square_size_needs_one_number():
    assert read_values({"size": "48"}) == {"width": 48, "height": 48}


BAD = [
    ({"steps": 0}, "--steps 0: out of range; give 1..1000"),
    ({"steps": 2.5}, "--steps 2.5: not a whole number; give 1..1000"),
    ({"steps": True}, "--steps True: not a whole number; give 1..1000"),
    ({"width": -64}, "--width -64: out of range; give 1..16384"),
    ({"height": 100000}, "--height 100000: out of range; give 1..16384"),
    ({"size": "64x"}, "--size 64x: not a size; give WIDTHxHEIGHT, such as 64x64"),
    ({"size": "1x2x3"}, "--size 1x2x3: not a size; give WIDTHxHEIGHT, such as 64x64"),
    ({"cfg_scale": "nan"}, "--cfg-scale nan: out of range; give 0..1000"),
    ({"cfg_scale": float("inf")}, "--cfg-scale inf: out of range; give 0..1000"),
    ({"vae_tiling": "maybe"}, "--vae-tiling maybe: neither true nor false; give true or false"),
    ({"background": "rde"}, "--background rde: no colour; give a name such as white, or #ff8800"),
    ({"dtype": "flaot32"}, "--dtype flaot32: no such choice; did you mean 'float32'?"),
    ({"quality": 101}, "--quality 101: out of range; give 1..100"),
    ({"stesp": 3}, "options: no option 'stesp'; did you mean 'steps'?"),
    ({"solver": "eulr"}, "--solver: no method 'eulr'; did you mean 'euler'?"),
    ({"cache": "none:x=1"}, "--cache none: no parameter 'x'; it takes none"),
    ({"size": "64", "width": 32}, "--width: given twice with its other name; give one of them"),
    ({"cfg": 3, "cfg_scale": 4}, "--cfg-scale: given twice with its other name; give one of them"),
]


@pytest.mark.parametrize("values, message", BAD, ids=[message[:30] for _, message in BAD])
def test_bad_values_say_option_and_remedy(values, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        read_values(values)


def test_a_file_is_named():
    with pytest.raises(UsageError, match=r"^cats.csv:3: --steps 0: out of range"):
        read_values({"steps": 0}, "cats.csv:3")


def test_the_scale_is_given_once():
    with pytest.raises(UsageError, match="--cfg-scale 3: --guidance cfg:scale=2 gives the scale"):
        read_values({"cfg_scale": 3, "guidance": "cfg:scale=2"})
    with pytest.raises(UsageError, match="--cfg-scale 3: --guidance none takes no scale"):
        read_values({"cfg_scale": 3, "guidance": "none"})
    assert read_values({"cfg_scale": 3, "guidance": "cfg:rescale=0.5"})["cfg_scale"] == 3


def test_scales_in_specs():
    assert has_scale("cfg:rescale=0.5, scale=2") and not has_scale("cfg:rescale=0.5")
    assert takes_scale("cfg") and not takes_scale("none")
    assert without_scale("cfg:scale=2") == "cfg"
    assert without_scale("cfg:scale=2,rescale=0.5") == "cfg:rescale=0.5"


@given(
    st.dictionaries(
        st.sampled_from([*OPTIONS, "x"]),
        st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.lists(st.text(max_size=3))),
        max_size=3,
    )
)
def test_nothing_but_dit_errors(values):
    try:
        made = read_values(values)
    except DitError as error:
        assert "\n" not in str(error)
    else:
        assert not made.keys() - OPTIONS.keys()
