"""Who may import whom: cli -> task rooms -> sampling, denoiser -> joint rooms, models -> core."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEVELS = (
    {"core", "__version__"},
    {"nn", "citations"},
    {
        "schedules",
        "solvers",
        "guidance",
        "noise",
        "caching",
        "attention",
        "tokens",
        "highres",
        "models",
        "media",
        "batch",
        "metrics",
        "objectives",
        "adapters",
    },
    {"denoiser", "inversion", "combine", "steering", "protecting"},
    {"sampling"},
    {"generating", "exporting", "training", "evaluating"},
    {"weights", "inverting"},
    {"editing", "calibrating", "streaming"},
    {"cli"},
)
"""From the ground up. A room imports itself and lower levels, never a room of its own level."""
LEVEL = {room: height for height, rooms in enumerate(LEVELS) for room in rooms}


def files() -> list[Path]:
    return sorted([*(ROOT / "dit_tools").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "cli" if parts[0] == "cli" else parts[1]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def rooms_imported(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in imports(path):
        first, *rest = name.split(".")
        if first == "dit_cli":
            yield line, "cli"
        elif first == "dit_tools" and rest:
            yield line, rest[0]


def allowed(importer: str, imported: str) -> bool:
    return importer == imported or LEVEL[imported] < LEVEL[importer]


def test_every_room_has_its_level() -> None:
    rooms = {room_of(path) for path in files()} - {"__init__"}
    assert rooms <= LEVEL.keys(), f"say in LEVELS where these belong: {rooms - LEVEL.keys()}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    bad = [f"line {line}: {room} imports {other}" for line, other in rooms_imported(path)
           if room == "__init__" or not allowed(room, other)]  # fmt: skip
    assert not bad, f"{path.relative_to(ROOT)}: {'; '.join(bad)}"


def test_the_rule_itself(tmp_path: Path) -> None:
    assert allowed("solvers", "core") and allowed("cli", "generating")
    assert not allowed("solvers", "guidance") and not allowed("core", "solvers")
    assert not allowed("generating", "exporting") and not allowed("models", "cli")
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from dit_tools.solvers import euler\n    import dit_cli.main\n")
    assert list(rooms_imported(file)) == [(2, "solvers"), (3, "cli")]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "dit_tools/core").glob("*.py")), ids=lambda p: p.stem
)
def test_core_imports_only_the_standard_library_at_the_top(path: Path) -> None:
    import sys

    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name if isinstance(node, ast.Import) else str(node.module)
             for node in top for alias in node.names}  # fmt: skip
    firsts = {name.partition(".")[0] for name in names}
    assert firsts <= {*sys.stdlib_module_names, "dit_tools"}


JOINTS = (
    "schedules",
    "solvers",
    "guidance",
    "noise",
    "caching",
    "attention",
    "tokens",
    "highres",
    "combine",
    "objectives",
    "adapters",
    "inversion",
    "editing",
    "weights/quantize",
)
METHODS = [path for room in JOINTS for path in sorted((ROOT / "dit_tools" / room).glob("*.py"))]


@pytest.mark.parametrize("path", METHODS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_method_files_import_neither_torch_nor_numpy_at_the_top(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [str(node.module) if isinstance(node, ast.ImportFrom) else alias.name
             for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
             for alias in node.names]  # fmt: skip
    heavy = {"torch", "numpy", "diffusers", "transformers", "onnxruntime"}
    assert not heavy & {name.partition(".")[0] for name in names}
