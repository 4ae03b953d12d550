"""The wheel that users install: all that the commands name, nothing of the tests, no weights twice."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
LARGEST = 100_000_000  # bytes: the limit of the package index


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy of what is in the repository, so that no build folder is left there."""
    place = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / "source" / name)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(place)],
        cwd=place / "source",
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(place / done.stdout.split()[-1])


def test_it_holds_what_the_commands_name(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for model in ("emoji", "emoji-small"):
        for file in ("recipe.toml", "README.md", "NOTICE.txt", "dit.json", "transformer.onnx"):
            assert f"dit_tools/builtin/{model}/{file}" in names
    assert "dit_tools/builtin/emoji/recipe-colour.toml" in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dit_tools").rglob("*.py")}
    assert modules <= names
    assert {f"dit_cli/{path.name}" for path in (ROOT / "cli").glob("*.py")} <= names


def test_it_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.startswith("dit_tools-")} == {"dit_cli", "dit_tools"}
    assert os.path.getsize(str(wheel.filename)) < LARGEST


def test_no_weights_are_in_it_twice_within_a_model(wheel: zipfile.ZipFile) -> None:
    seen: dict[tuple[str, str], str] = {}
    for entry in wheel.infolist():
        if entry.file_size > 500_000 and entry.filename.startswith("dit_tools/builtin/"):
            key = (entry.filename.split("/")[2], hashlib.sha256(wheel.read(entry)).hexdigest())
            assert key not in seen, f"{entry.filename} is {seen.get(key)} again"
            seen[key] = entry.filename


def test_an_installed_dit_finds_its_recipes(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked elsewhere, in an empty folder, with no checkout in sight."""
    wheel.extractall(tmp_path / "site")
    code = "from dit_cli.main import main; main()"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "DIT_DATA": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "train", "--recipe", "emoji", "--dry-run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4 and "give --data FOLDER, or set DIT_DATA" in done.stderr, done.stderr
