"""The grammar of method specs: round trips, errors and help, over every registered method."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_tools.core import spec
from dit_tools.core.errors import DitError, UsageError
from dit_tools.core.registry import CATEGORIES, get, names

METHODS = [(room, name) for room in CATEGORIES for name in names(room)]
EACH = pytest.mark.parametrize(("room", "name"), METHODS)
WORDS = st.text(string.ascii_letters + string.digits, min_size=1).filter(lambda w: w != "none")


def number(p, kind):
    """Numbers of a kind within a parameter's bounds."""
    low = p.ge if p.ge is not None else p.gt
    if kind is int:
        return st.integers(None if low is None else int(low), None if p.le is None else int(p.le))
    return st.floats(low, p.le, exclude_min=p.ge is None and p.gt is not None, allow_nan=False, allow_infinity=False)


def values(p):
    """Every value that a parameter may take."""
    if type(None) in p.types:
        rest = tuple(kind for kind in p.types if kind is not type(None))
        return st.none() | single(p, rest[0])
    return single(p, p.types[0])


def single(p, kind):
    """Values of one type."""
    if kind is bool:
        return st.booleans()
    if kind is str:
        return st.sampled_from(p.choices) if p.choices else WORDS
    if kind == spec.RANGE:
        pair = st.tuples(number(p, float), number(p, float))
        return pair.map(lambda ends: tuple(sorted(ends)))
    return number(p, kind)


@EACH
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_parse_is_the_inverse_of_format(room, name, data):
    cls = get(room, name)
    made = cls(**{p.field: data.draw(values(p)) for p in spec.parameters(cls)})
    assert spec.parse(room, spec.format(made)) == made


@EACH
def test_the_name_alone_is_the_default_and_back(room, name):
    made = spec.parse(room, name)
    assert made == get(room, name)() and spec.format(made) == name


@EACH
def test_every_parameter_has_help_and_a_good_default(room, name):
    for p in spec.parameters(get(room, name)):
        assert len(p.help) > 5 and "\n" not in p.help
        assert spec.check_value(p, p.default, "") == p.default
        assert not p.field.startswith("_")
        numeric = {int, float, spec.RANGE} & set(p.types)
        assert not numeric or p.bounds, f"{name}: {p.name} has no bounds"


@EACH
def test_identity_names_parameters_within_bounds(room, name):
    cls = get(room, name)
    known = {p.field: p for p in spec.parameters(cls)}
    for field, value in (cls.info.identity or {}).items():
        assert spec.check_value(known[field], value, "") == value


@EACH
def test_help_fits_80_columns_and_names_every_parameter(room, name):
    cls = get(room, name)
    text = spec.describe(cls)
    assert max(map(len, text.splitlines())) < 80
    assert all(f"  {p.name}=" in text for p in spec.parameters(cls))
    assert "``" not in text and text.endswith("\n")
    assert not cls.info.paper or cls.info.paper in text


@EACH
@settings(max_examples=40, deadline=None)
@given(rest=st.text(max_size=30))
def test_nothing_but_our_errors(room, name, rest):
    for text in (f"{name}:{rest}", *(f"{name}:{p.name}={rest}" for p in spec.parameters(get(room, name)))):
        try:
            made = spec.parse(room, text)
        except DitError as error:
            assert str(error).startswith(f"{CATEGORIES[room]} {name}: ")
            assert error.hint and "\n" not in str(error)
        else:
            assert spec.parse(room, spec.format(made)) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cgf", "--guidance: no method 'cgf'; did you mean 'cfg'?"),
        ("CFG", "--guidance: no method 'CFG'; did you mean 'cfg'?"),
        (
            "",
            "--guidance: no method ''; choose from adaptive, apg, cfg, cfg-zero-star, "
            "classifier, feedback, linear-ag, none, residual-cfg, soft-pag",
        ),
        ("cfg:sclae=3", "--guidance cfg: no parameter 'sclae'; did you mean 'scale'?"),
        ("none:scale=3", "--guidance none: no parameter 'scale'; it takes none"),
        (
            "cfg:scale",
            "--guidance cfg: 'scale' is not KEY=VALUE; for example "
            "cfg:scale=4.0,interval=0.0..1.0,rescale=0.0,norm=none",
        ),
        ("none:x", "--guidance none: 'x' is not KEY=VALUE; it takes no parameters"),
        ("cfg:scale=3,scale=4", "--guidance cfg: parameter 'scale' is given twice; give it once"),
        ("cfg:scale=big", "--guidance cfg: scale='big' is not valid; give a number >= 0"),
        ("cfg:scale=-1", "--guidance cfg: scale=-1.0 is out of range; give a number >= 0"),
        ("cfg:scale=nan", "--guidance cfg: scale=nan is out of range; give a number >= 0"),
        ("cfg:scale=inf", "--guidance cfg: scale=inf is out of range; give a number >= 0"),
        ("cfg:norm=rows", "--guidance cfg: norm='rows' is not a choice; did you mean 'row'?"),
        (
            "cfg:interval=0.8..0.2",
            "--guidance cfg: interval=0.8..0.2 is out of range; give a range such as 0.2..0.8, >= 0, <= 1",
        ),
        (
            "cfg:interval=0.8..x",
            "--guidance cfg: interval='0.8..x' is not valid; give a range such as 0.2..0.8, >= 0, <= 1",
        ),
    ],
)
def test_errors_say_option_method_parameter_and_remedy(text, message):
    with pytest.raises(UsageError) as caught:
        spec.parse("guidance", text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("room", "text", "message"),
    [
        ("solvers", "unipc:order=2.5", "order='2.5' is not valid; give a whole number >= 1, <= 3"),
        ("solvers", "unipc:order=" + "9" * 400, "is out of range; give a whole number >= 1, <= 3"),
        ("solvers", "unipc:lower-order-final=maybe", "give true or false"),
        ("solvers", "unipc:order=2,lower_order_final=1,lower-order-final=0", "is given twice"),
        ("solvers", "diffusers:class=", "class='' is not valid; give a name"),
        ("solvers", "diffusers:class_=X", "no parameter 'class_'; did you mean 'class'?"),
        ("schedules", "shifted:shift=0", "shift=0.0 is out of range; give a number > 0"),
    ],
)
def test_errors_of_other_types(room, text, message):
    with pytest.raises(UsageError) as caught:
        spec.parse(room, text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("room", "text", "field", "value"),
    [
        ("guidance", " cfg : scale = 3 , rescale=0.5 ", "scale", 3.0),
        ("guidance", "cfg:interval=0.2..0.8", "interval", (0.2, 0.8)),
        ("guidance", "cfg:interval=0.5", "interval", (0.5, 0.5)),
        ("guidance", "cfg_zero_star:zero-steps=0", "zero_steps", 0),
        ("schedules", "shifted:shift=none", "shift", None),
        ("solvers", "unipc:lower_order_final=no", "lower_order_final", False),
        ("solvers", "diffusers:class=DDPMScheduler", "class_", "DDPMScheduler"),
    ],
)
def test_readings(room, text, field, value):
    assert getattr(spec.parse(room, text), field) == value
