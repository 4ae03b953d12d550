"""``dit info`` as a user starts it."""

import json

import numpy as np

from dit_tools.media import image
from tests.jobs.test_record import validator
from tests.support.program import dit, python

RECORD = {"version": 1, "prompt": "a cat", "seed": 3, "steps": 4, "width": 8, "height": 6}


def write(path, **options):
    pixels = np.full((6, 8, 3), 0.5, np.float32)
    path.write_bytes(image.encode(pixels, image.format_of(path), **options))


def test_what_a_picture_is_and_how_it_was_made(tmp_path):
    write(tmp_path / "a.png", bits=16, record=RECORD)
    done = dit("info", "a.png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("a.png: png, 8x6, 16 bits, opaque, ")
    assert "    Steps: 4, Seed: 3, Size: 8x6" in lines and "    prompt: a cat" in lines


def test_json_keeps_to_the_schema(tmp_path):
    write(tmp_path / "a.jpg", record=RECORD)
    write(tmp_path / "b.webp")
    done = dit("info", "a.jpg", "b.webp", "--json", cwd=tmp_path)
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    for facts in (first, second):
        validator("info").validate(facts)
    assert first["record"] == RECORD and second["record"] is None and done.returncode == 0


def test_unreadable_files(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    for name in ("bad.png", "text.png", "cut.png", "none.png", "."):
        done = dit("info", name, cwd=tmp_path)
        assert done.returncode == 4 and done.stdout == "", name
        assert done.stderr.startswith(f"dit: {name}: ") and done.stderr.count("\n") == 1
    some = dit("info", "none.png", "a.png", cwd=tmp_path)
    assert some.returncode == 3 and some.stdout.startswith("a.png: ")
    none = dit("info", "none.png", "text.png", "--json", cwd=tmp_path)
    assert none.returncode == 4
    for line in none.stdout.splitlines():
        validator("info").validate(json.loads(line))


def test_foreign_metadata_cannot_steer_the_terminal(tmp_path):
    write(tmp_path / "a.png", record=RECORD | {"prompt": "a\x1b]0;evil\x07"})
    done = dit("info", "a.png", cwd=tmp_path)
    assert "\x1b" not in done.stdout and "\\x1b]0;evil\\x07" in done.stdout


def test_no_model_is_touched(tmp_path):
    write(tmp_path / "a.png")
    code = """
import sys
from dit_cli.main import run
run(["info", "a.png"])
print([name for name in ("torch", "onnxruntime", "rich") if name in sys.modules])
"""
    assert python(code, cwd=tmp_path).stdout.splitlines()[-1] == "[]"
