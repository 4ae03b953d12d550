"""What is imported before it is needed, measured by ``sys.modules`` and never by a clock."""

from __future__ import annotations

import sys

import pytest

from tests.support.program import python

HEAVY = {
    "numpy",
    "torch",
    "diffusers",
    "transformers",
    "onnxruntime",
    "PIL",
    "cv2",
    "imageio",
    "huggingface_hub",
    "rich",
    "pydantic",
    "tqdm",
    "safetensors",
}
LIGHT = {"typer", "annotated_doc", "shellingham", "dit_cli", "dit_tools"}
IMPORTED = """
import sys
before = set(sys.modules)
from dit_cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
print("IMPORTED", *sorted(tops))
"""


def imported(*arguments: str) -> set[str]:
    """The top-level modules that a command line imports."""
    done = python(IMPORTED, *arguments)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("IMPORTED")[2].split())


def test_root_help_imports_typer_and_nothing_else() -> None:
    found = imported("--help") - set(sys.stdlib_module_names)
    assert "typer" in found
    assert found <= LIGHT, found - LIGHT


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("generate", "--help"),
        ("methods", "--help"),
        ("methods",),
        ("methods", "taylorseer"),
        ("methods", "--bib"),
        ("generate", "--cache", "help"),
        ("generate", "--cache", "taylorseer:help"),
        ("generate", "x", "--cache", "taylorseer:odrer=1"),
        ("generate", "x", "--stpes", "3"),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_to_explain_or_to_refuse(arguments: tuple[str, ...]) -> None:
    assert not HEAVY & imported(*arguments)


def test_help_of_a_command_looks_up_no_installed_packages() -> None:
    code = IMPORTED.replace("print(", "print('importlib.metadata' in sys.modules, ")
    done = python(code, "generate", "--help")
    assert "False IMPORTED" in done.stdout
