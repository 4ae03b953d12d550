"""Who may import whom: cli -> jobs, tasks -> sampling -> methods -> media, nn, models -> core."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dit_tools.core.registry import CATEGORIES

ROOT = Path(__file__).parents[1]
LEVELS = (("core",), ("media", "nn", "models"), ("methods",), ("sampling",), ("jobs", "tasks"), ("cli",))
"""From the ground up. A package imports itself, lower levels, and those of its own level that stand before it."""
ORDER = {"core": 0, "media": 1, "nn": 2, "models": 3, "methods": 4, "sampling": 5, "jobs": 6, "tasks": 7, "cli": 8}
FREE = {"__version__"}
"""Names of ``dit_tools`` itself that everybody may import."""


def files() -> list[Path]:
    return sorted([*(ROOT / "dit_tools").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])


def module_of(path: Path) -> list[str]:
    """``dit_tools/nn/packed.py`` -> ["nn", "packed"]; a package's ``__init__`` is the package."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    parts = parts if parts[0] == "cli" else parts[1:]
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def ours(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and parts of the name of every import of ours: ["nn", "packed", "PackedLinear"]."""
    for line, name in imports(path):
        first, *rest = name.split(".")
        if first == "dit_cli":
            yield line, ["cli", *rest]
        elif first == "dit_tools" and rest and rest[0] not in FREE:
            yield line, rest


def allowed(importer: str, imported: str) -> bool:
    return ORDER[imported] <= ORDER[importer]


def test_the_order_is_that_of_the_levels() -> None:
    assert list(ORDER) == [package for level in LEVELS for package in level]
    assert list(ORDER.values()) == sorted(ORDER.values())


def test_dit_tools_has_few_entries() -> None:
    entries = [p.name for p in (ROOT / "dit_tools").iterdir() if p.name not in {"__init__.py", "__pycache__"}]
    assert len(entries) <= 12, sorted(entries)
    packages = {entry for entry in entries if (ROOT / "dit_tools" / entry / "__init__.py").exists()}
    assert packages == ORDER.keys() - {"cli"}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = module_of(path)
    if not own:  # the public names of dit_tools itself
        return
    bad = [f"line {line}: {'.'.join(name)}" for line, name in ours(path) if not allowed(own[0], name[0])]
    assert not bad, f"{path.relative_to(ROOT)}: {'; '.join(bad)}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_helper_modules_are_imported_in_their_own_folder_only(path: Path) -> None:
    folder = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    bad = []
    for line, name in ours(path):
        for depth, part in enumerate(name):
            if part.startswith("_") and name[:depth] != folder[:depth]:
                bad.append(f"line {line}: {'.'.join(name)}")
    assert not bad, f"{path.relative_to(ROOT)}: {'; '.join(bad)}"


@pytest.mark.parametrize("category", sorted(CATEGORIES))
def test_categories_do_not_import_each_other(category: str) -> None:
    bad = [
        f"{path.name}:{line} {'.'.join(name)}"
        for path in sorted((ROOT / "dit_tools/methods" / category).glob("*.py"))
        for line, name in ours(path)
        if name[0] == "methods" and name[1] != category
    ]
    assert not bad, bad


def _tasks_graph() -> dict[str, set[str]]:
    """What every task imports of other tasks; a file or a folder of ``tasks`` is one task."""
    graph: dict[str, set[str]] = {}
    for path in sorted((ROOT / "dit_tools/tasks").rglob("*.py")):
        own = module_of(path)[1:2]
        if own:
            used = {name[1] for _, name in ours(path) if name[0] == "tasks" and len(name) > 1}
            graph.setdefault(own[0], set()).update(used - {own[0]})
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Names along one circle of a graph, or nothing."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            if found := visit(other, [*trail, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def test_tasks_have_no_circles() -> None:
    assert not circle(_tasks_graph())


def test_the_rules_themselves(tmp_path: Path) -> None:
    assert allowed("methods", "core") and allowed("cli", "tasks") and allowed("tasks", "jobs")
    assert not allowed("methods", "sampling") and not allowed("core", "methods")
    assert not allowed("jobs", "tasks") and not allowed("models", "cli") and not allowed("nn", "models")
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from dit_tools.methods.solvers import euler\n    import dit_cli.main\n")
    assert list(ours(file)) == [(2, ["methods", "solvers", "euler"]), (3, ["cli", "main"])]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("path", sorted((ROOT / "dit_tools/core").glob("*.py")), ids=lambda p: p.stem)
def test_core_imports_only_the_standard_library_at_the_top(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name if isinstance(node, ast.Import) else str(node.module) for node in top for alias in node.names}
    firsts = {name.partition(".")[0] for name in names}
    assert firsts <= {*sys.stdlib_module_names, "dit_tools"}


METHODS = sorted((ROOT / "dit_tools/methods").rglob("*.py"))


@pytest.mark.parametrize("path", METHODS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_method_files_import_neither_torch_nor_numpy_at_the_top(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [
        str(node.module) if isinstance(node, ast.ImportFrom) else alias.name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    heavy = {"torch", "numpy", "diffusers", "transformers", "onnxruntime"}
    assert not heavy & {name.partition(".")[0] for name in names}
