"""``dit export`` as a user starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import dit as tiny
from tests.support.program import PROGRAM, dit, environment


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    tiny.pipeline(folder)
    return folder


def test_paths_on_stdout_and_differences_on_stderr(model: Path, tmp_path: Path) -> None:
    done = dit("export", "-m", model, "-o", "out", "--parts", "transformer,vae", cwd=tmp_path)
    names = ("transformer.onnx", "vae_decoder.onnx", "vae_encoder.onnx")
    assert (done.returncode, done.stdout.split()) == (0, [f"out/{name}" for name in names])
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for name, line in zip(names, lines, strict=True):
        start, number = line.rsplit(" ", 1)
        assert start == f"dit: {name}: differs from PyTorch by" and float(number) < 1e-3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    again = dit("export", "-m", model, "-o", "out", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (4, "")
    assert again.stderr == "dit: -o out: exists; add --overwrite, or choose another folder\n"


def test_json_and_int8_without_check(model: Path, tmp_path: Path) -> None:
    done = dit(
        "export", "-m", model, "-o", tmp_path / "out", "--parts", "transformer", "--int8", "--no-check", "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    graph, int8, end = map(json.loads, done.stdout.splitlines())
    paths = [str(tmp_path / f"out/transformer{kind}.onnx") for kind in ("", ".int8")]
    assert [graph, int8] == [{"type": "graph", "path": p, "difference": None} for p in paths]
    assert end == {"type": "done", "folder": str(tmp_path / "out"), "files": paths}


BAD = [
    (("--parts", "unet"), 2, "dit: --parts unet: no such part; choose from transformer,"),
    (("--parts", ","), 2, "dit: --parts is empty; give transformer"),
    (("--opset", "9"), 2, "dit: --opset 9: not known; give 17 to 20"),
    (("--opset", "new"), 2, "dit export: --opset: not a whole number"),
    (("--parts", "text_encoder"), 7, "dit: --parts text_encoder: the model has none; give --parts transformer,vae"),
    (("-o", "no/such/out"), 4, "dit: -o no/such/out: its folder does not exist; create it first"),
    (("-m", "no/such/model"), 5, "dit: --model no/such/model:"),
]


def test_split_writes_the_pieces_and_says_so(model: Path, tmp_path: Path) -> None:
    done = dit("export", "-m", model, "-o", tmp_path / "out", "--parts", "transformer", "--split")
    assert done.returncode == 0, done.stderr
    names = [Path(line).name for line in done.stdout.splitlines()]
    pieces = [f"transformer.{piece}.onnx" for piece in ("embed", "first", "rest", "final")]
    assert names == ["transformer.onnx", *pieces]
    assert all((tmp_path / "out" / name).exists() for name in names)
    assert done.stderr.count("differs from PyTorch by") == 5


@pytest.mark.parametrize("arguments, code, message", BAD, ids=[" ".join(a) for a, *_ in BAD])
def test_bad_requests(arguments: tuple[str, ...], code: int, message: str, model: Path, tmp_path: Path) -> None:
    done = dit("export", "-m", model, "-o", "out", *arguments, cwd=tmp_path)
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1, done.stderr
    assert (done.returncode, done.stdout) == (code, "")
    assert list(tmp_path.iterdir()) == []


def test_model_and_output_are_required(model: Path) -> None:
    for words, name in ((("-m", str(model)), "--output"), (("-o", "x"), "--model")):
        done = dit("export", *words)
        assert done.returncode == 2 and name in done.stderr


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing(number: int, code: int, model: Path, tmp_path: Path) -> None:
    words = [str(PROGRAM), "export", "-m", str(model), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".dit-part-*/transformer")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in error, error
    assert list(tmp_path.iterdir()) == []
