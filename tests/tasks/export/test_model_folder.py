"""Output folders are whole or absent; what is taken along of a model's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dit_tools.core.errors import InputError
from dit_tools.tasks.export import model_folder
from tests.support.loading import copy

Folder = Callable[[str], Path]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), model_folder.whole_folder(tmp_path / "out", False) as folder:
        (folder / "a").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_success_takes_the_name(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty folder may be filled
    with model_folder.whole_folder(tmp_path / "out", False) as folder:
        assert folder.parent == tmp_path and folder.name.startswith(".")
        (folder / "a").write_text("whole")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["out", "out/a"]


def test_what_came_into_being_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="out: "), model_folder.whole_folder(tmp_path / "out", False):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/other").write_text("other's")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "other"]


def test_a_full_disk_is_an_input_error(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="the disk is full; free some"),
        model_folder.whole_folder(tmp_path / "out", False),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_are_refused(tmp_path: Path) -> None:
    source, home = tmp_path / "models/a", tmp_path / "home"
    source.mkdir(parents=True)
    home.mkdir()
    (home / "precious").write_text("x")
    cases = {
        source: "the model itself lies there",
        tmp_path / "models": "the model itself lies there",
        home: "exists and is no export",
        home / "no/out": "its folder does not exist",
        home / "precious": "exists and is no export",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            model_folder.check_output(path, source, overwrite=True)
    (home / "export.json").write_text("{}")
    with pytest.raises(InputError, match="add --overwrite"):
        model_folder.check_output(home, source, overwrite=False)
    model_folder.check_output(home, source, overwrite=True)
    model_folder.check_output(source / "onnx", source, overwrite=False)  # inside is fine


def test_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"x" * 1000)
    usage = SimpleNamespace(free=model_folder.MARGIN + 999)
    monkeypatch.setattr(model_folder.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="0.1 GB are needed"):
        model_folder.check_space([file], tmp_path / "out")
    usage.free += 1
    model_folder.check_space([file], tmp_path / "out")


def test_files_that_go_along(models: Folder, tmp_path: Path) -> None:
    source = copy(models("dit"), tmp_path / "model")
    plain = {p.relative_to(source).as_posix() for p in model_folder.model_files(source)}
    assert plain == {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    name = "transformer/diffusion_pytorch_model"
    for extra in (
        f"{name}.fp16.safetensors",
        f"{name}.bin",
        "transformer.onnx",
        "notes.txt",
        "transformer/.hidden",
        "samples/a.png",
    ):
        (source / extra).parent.mkdir(exist_ok=True)
        (source / extra).write_bytes(b"")
    (source / "README.md").write_text("card")
    found = {p.relative_to(source).as_posix() for p in model_folder.model_files(source)}
    assert found == plain | {"README.md"}


def test_variants_go_along_where_there_is_nothing_else(models: Folder, tmp_path: Path) -> None:
    source = copy(models("dit"), tmp_path / "model")
    path = source / "transformer/diffusion_pytorch_model.safetensors"
    renamed = path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert renamed in model_folder.model_files(source)
    assert model_folder.model_weights(source / "transformer") == [renamed]


def test_links_become_files(models: Folder, tmp_path: Path) -> None:
    source = copy(models("dit"), tmp_path / "model")
    index = source / "model_index.json"
    blob = index.rename(tmp_path / "blob")
    index.symlink_to(blob)  # as in the hub's cache
    model_folder.copy_files(model_folder.model_files(source), source, tmp_path / "out")
    copied = tmp_path / "out/model_index.json"
    assert not copied.is_symlink() and copied.read_bytes() == blob.read_bytes()
