"""``dit quantize`` that is killed, or whose disk is full, goes on where it was: same bytes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support import pixart
from tests.support.program import python

RUNS = """
import errno, json, os, signal, sys
import onnxruntime, torch  # once for all runs: they are forks
from diffusers import AutoencoderKL, PixArtAlphaPipeline, PixArtTransformer2DModel
from dit_cli.main import main
from dit_tools.models.loading import torch_loader
from dit_tools.tasks.quantize import quantize

def fragile(kind, count, end):
    # Something happens at the count-th line of that type: a signal, or a full disk.
    seen = 0
    plain = json.dumps

    def dumps(value, *rest, **named):
        nonlocal seen
        if isinstance(value, dict) and value.get("type") == kind:
            seen += 1
            if seen == count and end == "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            if seen == count:
                os.kill(os.getpid(), end)
        return plain(value, *rest, **named)

    json.dumps = dumps

for number, (arguments, trouble) in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{name}", os.O_CREAT | os.O_WRONLY), descriptor)
        if trouble:
            fragile(*trouble)
        code = 1
        try:
            main(["quantize", "--json", *arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "model"
    pixart.pipeline(folder)
    return folder


def run(folder: Path, model: Path, *runs: tuple[tuple[str, ...], Any]) -> list[int]:
    """The exit codes, or minus the signals, of several runs one after the other in ``folder``."""
    common = ("-m", str(model), "--prompts", "0", "--calibration", "1", "--steps", "2")
    asked = [((*common, *words), trouble) for words, trouble in runs]
    done = python(RUNS, json.dumps(asked), cwd=folder)
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def told(folder: Path, number: int) -> list[dict[str, Any]]:
    """The lines that a run printed."""
    text = (folder / f"{number}.out").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def same(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files; what is said of them differs in no byte either."""
    ours, theirs = ({p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()} for root in (a, b))
    return ours == theirs


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".dit-part-")]


TARGETS = {
    "folder": (("--scheme", "q-diffusion:group=8,iterations=2"), "layer", 7),
    "gguf": (("--target", "gguf"), "layer", 7),
    "gguf-learned": (("--target", "gguf", "--scheme", "q-diffusion:bits=4,group=32,iterations=2"), "layer", 9),
    "int4": (("--target", "onnx:form=int4", "--scheme", "q-diffusion:bits=4,group=16,iterations=2"), "packed", 7),
    "static": (("--target", "onnx:form=static"), "graph", 1),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(name: str, model: Path, tmp_path: Path) -> None:
    words, kind, count = TARGETS[name]
    ours = ("-o", "ours", *words)
    codes = run(tmp_path, model, (ours, (kind, count, signal.SIGKILL)), (ours, None), (("-o", "plain", *words), None))
    assert codes == [-signal.SIGKILL, 0, 0]
    assert hidden(tmp_path) == []
    again, plain = (told(tmp_path, number) for number in (1, 2))
    if kind == "layer":  # those that were written are not written again
        lines = [sum(line["type"] == kind for line in many) for many in (again, plain)]
        assert lines[0] == lines[1] - count
    assert same(tmp_path / "ours", tmp_path / "plain")


def test_what_was_made_is_not_made_again(model: Path, tmp_path: Path) -> None:
    """The hidden folder of a killed run has the export and the packed layers, then they are read:
    damage to one of them is in the result.
    """
    words = ("-o", "ours", "--target", "onnx:form=int4", "--scheme", "rtn:bits=4,group=16")
    assert run(tmp_path, model, (words, ("packed", 7, signal.SIGKILL))) == [-signal.SIGKILL]
    (part,) = hidden(tmp_path)
    layers = list((tmp_path / part / "scratch/layers").glob("*.safetensors"))
    assert len(layers) in (6, 7) and (tmp_path / part / "scratch/export").is_dir()
    layers[0].write_bytes(b"damage")
    assert run(tmp_path, model, (words, None)) != [0]


@pytest.mark.parametrize("name", ["folder", "gguf", "int4"])
def test_a_full_disk_keeps_what_is_done(name: str, model: Path, tmp_path: Path) -> None:
    words, kind, count = TARGETS[name]
    ours = ("-o", "ours", *words)
    codes = run(tmp_path, model, (ours, (kind, count, "full")), (ours, None), (("-o", "plain", *words), None))
    assert codes == [4, 0, 0]
    message = (tmp_path / "0.err").read_text(encoding="utf-8")
    assert message.startswith(
        "dit: ours: cannot be written: the disk is full; free some space and run the same command"
    )
    assert message.count("\n") == 1 and hidden(tmp_path) == []
    assert same(tmp_path / "ours", tmp_path / "plain")


def test_ctrl_c_keeps_and_another_option_begins_anew(model: Path, tmp_path: Path) -> None:
    first = ("-o", "ours", "--scheme", "rtn:bits=4,group=8")
    other = ("-o", "ours", "--scheme", "rtn:bits=3,group=8")
    codes = run(tmp_path, model, (first, ("layer", 7, signal.SIGINT)))
    assert codes == [130] and len(hidden(tmp_path)) == 1
    before = hidden(tmp_path)
    codes = run(tmp_path, model, (other, ("layer", 5, signal.SIGTERM)))
    assert codes == [143] and len(hidden(tmp_path)) == 1 and hidden(tmp_path) != before
    codes = run(tmp_path, model, (first, None), (("-o", "plain", *first[2:]), None))
    assert codes == [0, 0] and hidden(tmp_path) == []
    lines = [sum(line["type"] == "layer" for line in told(tmp_path, n)) for n in (0, 1)]
    assert lines[0] == lines[1]  # nothing of what the other left was used
    assert same(tmp_path / "ours", tmp_path / "plain")
