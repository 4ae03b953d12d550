"""The manifest: what counts as done, torn lines, two processes, a full disk."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core.errors import InputError, UsageError
from dit_tools.jobs import manifest as module
from dit_tools.jobs.manifest import MANIFEST_NAME, Manifest, key_of


def finished(folder, name="a.png", content=b"picture", key="k"):
    (folder / name).write_bytes(content)
    Manifest(folder).add(key, folder / name)
    return folder / name


def test_done_survives_a_restart(tmp_path):
    path = finished(tmp_path)
    again = Manifest(tmp_path)
    assert again.done("k") == path and again.done("other") is None and len(again) == 1
    line = json.loads((tmp_path / MANIFEST_NAME).read_text())
    assert line["output"] == "a.png" and line["size"] == 7 and len(line["sha256"]) == 64


def test_a_changed_or_missing_output_is_not_done(tmp_path):
    path = finished(tmp_path)
    path.write_bytes(b"changed")  # of the same size
    assert Manifest(tmp_path).done("k") is None
    path.write_bytes(b"image and more")
    assert Manifest(tmp_path).done("k") is None
    path.unlink()
    assert Manifest(tmp_path).done("k") is None
    path.mkdir()
    assert Manifest(tmp_path).done("k") is None


def test_a_folder_that_moves_stays_done(tmp_path):
    old = tmp_path / "old"
    (old / "sub").mkdir(parents=True)
    finished(old, "sub/a.png")
    old.rename(tmp_path / "new")
    assert Manifest(tmp_path / "new").done("k") == tmp_path / "new" / "sub" / "a.png"


def test_failures_are_listed_until_they_succeed(tmp_path):
    manifest = Manifest(tmp_path / "made")
    manifest.add_failure("k", "out of\nmemory " + "x" * 9999)
    assert Manifest(tmp_path / "made").failed()["k"].startswith("out of memory xxx")
    assert manifest.done("k") is None
    finished(tmp_path / "made")
    assert Manifest(tmp_path / "made").failed() == {}


@pytest.mark.parametrize("cut", [1, 5, 40, 100])
def test_a_torn_last_line_is_tolerated_and_not_glued_to_the_next(tmp_path, cut):
    first = finished(tmp_path, "a.png", key="one")
    finished(tmp_path, "b.png", key="two")
    content = (tmp_path / MANIFEST_NAME).read_bytes()
    (tmp_path / MANIFEST_NAME).write_bytes(content[:-cut])
    torn = Manifest(tmp_path)
    assert torn.done("one") == first
    assert torn.damaged == (cut > 1) and (torn.done("two") is None) == (cut > 1)
    finished(tmp_path, "c.png", key="three")
    assert Manifest(tmp_path).done("three") and Manifest(tmp_path).done("one") == first


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_bytes_are_read(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("m")
    (folder / MANIFEST_NAME).write_bytes(b"\n".join(lines) + b"\n")
    assert len(Manifest(folder)) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2, "key": "k", "status": "failed"},
        {"version": 1, "key": 3, "status": "failed"},
        {"version": 1, "key": "k", "status": "done"},
        {"version": 1, "key": "k", "status": "done", "output": "a", "sha256": "../x"},
        {"version": 1, "key": "k", "status": "failed", "extra": 1},
    ],
)
def test_lines_of_another_shape_are_passed_over(tmp_path, fields):
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(fields) + "\n")
    manifest = Manifest(tmp_path)
    assert len(manifest) == 0 and manifest.damaged == 1


def test_processes_append_at_once(tmp_path):
    code = (
        "import sys; from dit_tools.jobs.manifest import Manifest\n"
        "manifest = Manifest(sys.argv[1])\n"
        "for i in range(100): manifest.add_failure(f'{sys.argv[2]}-{i}', 'x' * 400)\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    manifest = Manifest(tmp_path)
    assert (len(manifest), manifest.damaged) == (300, 0)
    assert all(len(reason) == 400 for reason in manifest.failed().values())


def test_errors(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="read back"):
        Manifest(tmp_path).add("k", tmp_path / "missing.png")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be (read|written)"):
        Manifest(tmp_path / "file").add_failure("k", "x")
    (tmp_path / "bad" / MANIFEST_NAME).mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be read"):
        Manifest(tmp_path / "bad")
    monkeypatch.setattr(module.os, "write", lambda descriptor, data: len(data) // 2)
    with pytest.raises(InputError, match="disk is full"):
        Manifest(tmp_path).add_failure("k", "x")


def test_keys():
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1}) != key_of({"a": 1, "b": [3]})
    assert len(key_of({"prompt": "\ud800"})) == 64
    with pytest.raises(UsageError):
        key_of({"a": object()})
