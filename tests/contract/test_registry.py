"""What every file in a category of methods promises, whatever it does."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.core.registry import CATEGORIES, get, names
from tests.contract.conftest import methods

EVERY = methods()
NUMBERS = (int, float, tuple[float, float])


def values(parameter: spec.Parameter) -> st.SearchStrategy:
    """Values that a parameter allows."""
    kinds = getattr(parameter.type, "__args__", (parameter.type,))
    low = parameter.ge if parameter.ge is not None else parameter.gt
    span = {"min_value": low, "max_value": parameter.le}
    exact = {**span, "exclude_min": parameter.gt is not None, "allow_nan": False, "allow_infinity": False}
    if parameter.choices:
        return st.sampled_from(parameter.choices)
    if parameter.type == tuple[float, float]:
        pair = st.tuples(st.floats(**exact), st.floats(**exact))
        return pair.map(lambda ends: tuple(sorted(ends)))
    if bool in kinds:
        return st.booleans()
    if int in kinds:
        return st.integers(**{key: None if v is None else int(v) for key, v in span.items()})
    if float in kinds:
        return st.floats(**exact)
    return st.just(parameter.default)


@pytest.mark.parametrize("cls", EVERY)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_specs_are_read_as_they_are_written(cls, data):
    chosen = {p.field: data.draw(values(p), label=p.name) for p in spec.parameters(cls)}
    made = cls(**chosen)
    assert spec.parse(cls.info.category, spec.format(made)) == made


@pytest.mark.parametrize("cls", EVERY)
def test_every_parameter_is_explained_and_bounded(cls):
    for parameter in spec.parameters(cls):
        assert parameter.help, f"{parameter.name} has no help"
        assert len(f"  {parameter.name}: {parameter.help}") <= 100
        if parameter.type in NUMBERS:
            assert parameter.bounds, f"{parameter.name} has no bounds"
            spec.check_value(parameter, parameter.default, "default")


@pytest.mark.parametrize("cls", EVERY)
def test_the_class_is_documented_and_named_after_its_file(cls):
    assert inspect.getdoc(cls)
    module = importlib.import_module(cls.__module__)
    assert inspect.getdoc(module)
    assert cls.info.name == cls.__module__.rpartition(".")[2].replace("_", "-")
    assert not cls.info.paper or (cls.info.title and cls.info.year and cls.info.authors)


@pytest.mark.parametrize("cls", EVERY)
def test_identity_parameters_are_parameters_within_bounds(cls):
    known = {p.field: p for p in spec.parameters(cls)}
    for name, value in (cls.info.identity or {}).items():
        spec.check_value(known[name], value, "identity")


@pytest.mark.parametrize("cls", EVERY)
def test_an_unknown_parameter_is_refused_by_option_and_method(cls):
    with pytest.raises(UsageError, match=f"{cls.info.flag} {cls.info.name}: no parameter"):
        spec.parse(cls.info.category, f"{cls.info.name}:surely-not-one=1")


@pytest.mark.parametrize("room", CATEGORIES)
def test_methods_are_frozen(room):
    for name in names(room):
        made = get(room, name)()
        with pytest.raises(AttributeError):
            made.anything = 1


def test_importing_every_method_loads_no_heavy_library():
    code = (
        "import sys\n"
        "from dit_tools.core.registry import CATEGORIES, get, names\n"
        "found = [get(category, name) for category in CATEGORIES for name in names(category)]\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'onnxruntime'} & set(sys.modules)\n"
        "assert len(found) > 5 and not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
