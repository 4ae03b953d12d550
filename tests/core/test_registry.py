"""The registry: choices from the folder, look-up, plug-ins, and light imports."""

import dataclasses
import subprocess
import sys
import types

import pytest

from dit_tools.core import registry
from dit_tools.core.errors import UsageError
from dit_tools.core.registry import CATEGORIES, get, method, names, nearest, package_of, param

METHODS = [(room, name) for room in CATEGORIES for name in names(room)]


def test_rooms_hold_their_methods():
    assert set(names("solvers")) >= {"ddim", "diffusers", "dpmpp-2m", "euler", "heun", "unipc"}
    assert set(names("schedules")) >= {"beta", "karras", "native", "shifted", "uniform"}
    assert set(names("guidance")) >= {"adaptive", "apg", "cfg", "cfg-zero-star", "none"}
    assert set(names("noise")) >= {"philox", "torch-cpu"}
    assert names("no_such_room") == []


@pytest.mark.parametrize(("room", "name"), METHODS)
def test_every_file_is_one_frozen_method_of_its_own_name(room, name):
    cls = get(room, name)
    assert (cls.info.category, cls.info.name, cls.info.flag) == (room, name, CATEGORIES[room])
    assert cls.__module__ == f"{package_of(room)}.{name.replace('-', '_')}"
    assert cls.__doc__ and dataclasses.is_dataclass(cls)
    assert get(room, name.replace("-", "_")) is cls
    made = cls()
    for field in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, field.default)


@pytest.mark.parametrize(("room", "name"), METHODS)
def test_a_paper_comes_with_title_year_and_authors(room, name):
    info = get(room, name).info
    if info.paper:
        assert info.paper.startswith(("arXiv:", "doi:"))
        assert info.title and info.authors and 1950 < info.year < 2100
    else:
        assert not (info.title or info.authors or info.year)
    assert info.needs <= {"blocks", "stack", "gradients", "torch"}


@pytest.mark.parametrize(("room", "name"), METHODS)
def test_importing_a_method_loads_no_heavy_package(room, name):
    script = (
        "import sys\n"
        "from dit_tools.core import spec\n"
        f"spec.describe(type(spec.parse({room!r}, {name!r})))\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'scipy', 'PIL', 'onnxruntime', 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (out.stdout, out.stderr) == ("[]\n", "")


def test_listing_imports_no_method():
    script = (
        "import sys\n"
        "from dit_tools.core.registry import CATEGORIES, names\n"
        "categories = [names(category) for category in CATEGORIES]\n"
        "print([m for m in sys.modules if m.startswith(('dit_tools.methods.', 'dit_tools.tasks.quantize.'))])\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


@pytest.mark.parametrize("name", ["_base", "-base", "../core/spec", "base", "None", "x" * 5000])
def test_furniture_and_nonsense_are_no_methods(name):
    with pytest.raises(UsageError, match="^--solver: no method .*; (did you mean|choose from) "):
        get("solvers", name)


def test_task_rooms_are_called_method():
    with pytest.raises(UsageError, match="^--method: no method 'x'"):
        get("no_such_room", "x")


def test_plug_ins_are_found_by_entry_point(monkeypatch):
    @method()
    class Mine:
        """A method from elsewhere."""

        size: int = param(1, "how large", ge=0)

    point = types.SimpleNamespace(name="my_solver", load=lambda: Mine)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [point] if group == "dit.solvers" else [])
    assert registry.plugin_names("solvers") == ["my-solver"]
    assert get("solvers", "my-solver") is Mine
    with pytest.raises(UsageError, match="did you mean 'my-solver'"):
        get("solvers", "my-solvr")
    with pytest.raises(UsageError):
        get("noise", "my-solver")


def test_a_file_without_a_method_is_a_programming_error(monkeypatch):
    monkeypatch.setattr(registry, "names", lambda room: ["base"])
    monkeypatch.setattr(registry.importlib, "import_module", lambda name: types.ModuleType("dit_tools.x.base"))
    with pytest.raises(TypeError, match="no class decorated"):
        get("x", "base")


def test_nearest_word_or_all_of_them():
    assert nearest("Cfg-Zero", ["cfg-zero-star", "none"]) == "did you mean 'cfg-zero-star'?"
    assert nearest("zzz", ["a", "b"]) == "choose from a, b"
