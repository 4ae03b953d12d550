"""Files, folders, patterns and lists become one list of files."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dit_tools.core.errors import InputError, UsageError
from dit_tools.jobs.inputs import expand_inputs


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "note.txt", "deep/c.webp", ".hidden/d.png", ".e.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_a_folder_gives_its_pictures_sorted_and_nothing_hidden(tree: Path) -> None:
    assert [p.name for p in expand_inputs([str(tree)])] == ["a.JPG", "b.png", "c.webp"]


def test_patterns_lists_and_files_each_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tree / "list.txt"
    listed.write_text(f"# mine\n{tree}/b.png\n\n{tree}/note.txt\n")
    words = [f"{tree}/*.png", f"@{listed}", f"{tree}/b.png"]
    assert [p.name for p in expand_inputs(words)] == ["b.png", "note.txt"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{tree}/a.JPG\n"))
    assert [p.name for p in expand_inputs(["-"])] == ["a.JPG"]
    assert [p.name for p in expand_inputs([f"{tree}/**/*.webp"])] == ["c.webp"]


@pytest.mark.parametrize("word", ["no.png", "no*.png", "@no.txt"])
def test_what_means_no_file_is_named(tree: Path, word: str, monkeypatch) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(InputError, match="no"):
        expand_inputs([word])


def test_an_empty_folder_and_a_list_of_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no"):
        expand_inputs([str(tmp_path)])
    (tmp_path / "list").write_text("@list\n")
    with pytest.raises(UsageError, match="another list"):
        expand_inputs([f"@{tmp_path}/list"])
