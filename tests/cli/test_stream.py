"""``dit generate --stream`` as a program, on the built-in model and its ONNX graphs."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest

from dit_tools.media import frames, image
from tests.support.program import PROGRAM, dit, environment


def picture(level: float) -> bytes:
    rows = np.linspace(0, 1, 64, dtype=np.float32)[:, None, None]
    return image.encode(np.broadcast_to(np.abs(rows - level), (64, 64, 3)), "png")


def test_a_folder_becomes_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i, level in enumerate((0.1, 0.1, 0.9)):
        (tmp_path / "in" / f"{i}.png").write_bytes(picture(level))
    done = dit("generate", "a cat", "--stream", "in", "--steps", "4", "-o", "out/", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.split() == [f"out/0000{i}.png" for i in (1, 2, 3)]
    assert done.stderr.endswith("dit: 3 frames, 1 of them skipped, 3 network calls\n")
    first, second, third = (image.read(tmp_path / name).pixels for name in done.stdout.split())
    assert np.array_equal(first, second) and not np.array_equal(second, third)


def test_a_pipe_becomes_a_pipe(tmp_path: Path) -> None:
    command = [str(PROGRAM), "generate", "a cat", "--stream", "-", "--steps", "2", "-o", "-", "-q"]
    done = subprocess.run(
        command, input=picture(0.1) + picture(0.9), capture_output=True, cwd=tmp_path, env=environment()
    )
    assert done.returncode == 0 and done.stderr == b""
    made = list(frames.read_pipe(io.BytesIO(done.stdout)))
    assert [frame.shape for frame in made] == [(128, 128, 3)] * 2


@pytest.mark.parametrize(
    "words, line",
    [
        (["a", "--strength", "0.5"], "dit: --strength cannot be used without --stream; "),
        (["a", "--stream", "in", "--grid", "g.png"], "dit: --grid cannot be used with --stream; "),
        (["a", "--stream", "gone", "-o", "x/"], "dit: gone: no such file or folder; "),
        (["--stream", "gone"], "dit: --stream: takes one prompt; "),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], line: str, tmp_path: Path) -> None:
    done = dit("generate", *words, cwd=tmp_path)
    assert done.returncode in (2, 4) and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(line) and "Traceback" not in done.stderr
