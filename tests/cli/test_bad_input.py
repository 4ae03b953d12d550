"""Whatever is wrong: one line on stderr, its exit code, no traceback, no partial file."""

import json
import os
import resource
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from dit_tools.models.loading.resolve import BUILTIN
from tests.support.program import PROGRAM, dit, environment
from tests.support.terminal import on_terminal

FAST = ("--steps", "1", "--cfg-scale", "1")


def refused(done, code, message, folder=None):
    """One line that starts with ``message``, this exit code, and an empty folder."""
    assert done.stderr.startswith(message), done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert done.returncode == code and done.stdout == ""
    if folder is not None:
        assert not [path for path in folder.rglob("*") if path.suffix in (".png", ".gif", ".jsonl")]


USAGE = [
    (("x", "--solver", "eulr"), "dit: --solver: no method 'eulr'; did you mean 'euler'?"),
    (("x", "--cache", "taylorseer:odrer=2"), "dit: --cache taylorseer: no parameter 'odrer'; did you mean 'order'?"),
    (("x", "--cache", "taylorseer:order=99"), "dit: --cache taylorseer: order=99 is out of range"),
    (("x", "--guidance", "cfg:scale"), "dit: --guidance cfg: 'scale' is not KEY=VALUE"),
    (("x", "--stpes", "3"), "dit generate: No such option '--stpes'; did you mean '--steps'?"),
    (("x", "--steps", "many"), "dit: --steps many: not a whole number; give 1..1000"),
    (
        ("x", "--cfg-scale", "3", "--guidance", "cfg:scale=2"),
        "dit: --cfg-scale 3: --guidance cfg:scale=2 gives the scale too; give one of them",
    ),
    (("x", "--size", "0"), "dit: --size 0: out of range; give 1..16384"),
    (("x", "-W", "-64"), "dit: --width -64: out of range; give 1..16384"),
    (("x", "--size", "100000x64"), "dit: --size 100000: out of range; give 1..16384"),
    (("x", "--size", "20"), "dit: size 20x20: neither side is a multiple of 32; the nearest size is 32x32"),
    (("x", "--size", "64,64"), "dit: --size 64,64: not a whole number"),
    (("x", "--seed", "5..1"), "dit: --seed 5..1: runs backwards; did you mean 1..5?"),
    (("x", "--seed", "1,2", "-N", "5"), "dit: --num-images 5: --seed lists 2 seeds"),
    (("x", "--dtype", "fp12"), "dit: --dtype fp12: no such choice"),
    (("x", "--sweep", "cgf=1,2"), "dit: --sweep cgf=1,2: no option 'cgf'; did you mean 'cfg'?"),
    (("x", "-o", "{sed}.png"), "dit: -o {sed}.png: no field 'sed'; did you mean 'seed'?"),
    (("x", "-o", "a.bmp"), "dit: a.bmp: suffix '.bmp': no such image format"),
    (("x", "--background", "rde"), "dit: --background rde: no colour"),
    (("x", "--transparent", "-o", "a.jpg"), "dit: --transparent: jpeg holds no transparency"),
    (("x", "--preset", "none"), "dit: --preset none: no such preset"),
    (("x", "--save-steps", "a.png"), "dit: --save-steps a.png: no animation format"),
    ((), "dit: no prompt; give one, for example: dit generate"),
    (("-", "--prompt-file", "-"), "dit: stdin is asked for twice; give - once"),
    (("x", "--base", "elsewhere"), "dit: --base elsewhere: emoji is whole; --base is for a sing"),
    (("x" * 100_001,), "dit: --prompt: a text of 100001 bytes; at most 100000"),
]


@pytest.mark.parametrize("arguments, message", USAGE, ids=[text[:40] for _, text in USAGE])
def test_usage(tmp_path, arguments, message):
    refused(dit("generate", *arguments, cwd=tmp_path), 2, message, tmp_path)


def test_debug_shows_the_traceback():
    done = dit("generate", "x", "--steps", "0", "--debug")
    assert "Traceback" in done.stderr and done.stderr.endswith("give 1..1000\n")


FILES = {
    "steps.csv": ("prompt,steps\na,5\nb,0\n", "steps.csv:3: --steps 0: out of range"),
    "method.jsonl": (
        '{"prompt": "a"}\n{"prompt": "b", "solver": "eulr"}\n',
        "method.jsonl:2: --solver: no method 'eulr'; did you mean 'euler'?",
    ),
    "option.csv": ("prompt,stesp\na,5\n", "option.csv:1: no option 'stesp'; did you mean 'steps'?"),
    "bad.jsonl": ('{"prompt": "a"}\n{"prompt": \n', "bad.jsonl:2: bad JSON"),
    "empty.txt": ("# nothing\n\n", "empty.txt: holds no prompt"),
    "cells.csv": ("prompt\na,b\n", "cells.csv:2: 2 cells, but 1 columns"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_prompt_files_name_the_line(tmp_path, name):
    text, message = FILES[name]
    (tmp_path / name).write_text(text)
    done = dit("generate", "--prompt-file", name, cwd=tmp_path)
    refused(done, 4, f"dit: {message}")


def test_other_unreadable_inputs(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "c.toml").write_text("steps = \n")
    (tmp_path / "plain.png").write_bytes(b"no image")
    for arguments, message in (
        (("--prompt-file", "latin.txt"), "latin.txt:1: not UTF-8"),
        (("--prompt-file", "none.txt"), "none.txt: cannot be read: No such file"),
        (("--prompt-file", "."), ".: cannot be read: Is a directory"),
        (("--config", "c.toml"), "c.toml: bad TOML"),
        (("--config", "none.toml"), "none.toml: cannot be read"),
        (("--from-image", "plain.png"), "plain.png: "),
    ):
        refused(dit("generate", *arguments, cwd=tmp_path), 4, f"dit: {message}")


def test_ten_megabytes_of_prompt(tmp_path):
    (tmp_path / "x.txt").write_text("a" * 10_000_000)
    done = dit("generate", "--prompt-file", "x.txt", cwd=tmp_path)
    refused(done, 4, "dit: x.txt:1: a line of over 1048576 bytes; shorten it")
    piped = subprocess.run(
        [PROGRAM, "generate", "-"],
        input="word " * 2_000_000,
        capture_output=True,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    refused(piped, 4, "dit: -:1: a line of over 1048576 bytes", tmp_path)


# models


def safetensors(path, header, body=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_models_that_cannot_be_read(tmp_path):
    (tmp_path / "empty").mkdir()
    tensor = {"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    safetensors(tmp_path / "cut.safetensors", tensor, b"\0" * 7)
    safetensors(tmp_path / "noise.safetensors", b"\xff\xfe nonsense")
    (tmp_path / "pickle.bin").write_bytes(b"\x80\x04N.")
    for reference, message in (
        ("emojo", "--model emojo: no such model; did you mean 'emoji'?"),
        ("./none", "--model ./none: no such file or folder"),
        ("nobody/nothing", "--model nobody/nothing: not on this machine"),
        ("empty", "--model empty: no model_index.json in this folder"),
        ("cut.safetensors", "cut.safetensors"),
        ("noise.safetensors", "noise.safetensors"),
        ("m" * 300, "no such model"),
        ("pickle.bin", "--model pickle.bin: pickled weights can run code when opened"),
    ):
        done = dit("generate", "x", "-m", reference, "-o", "a.png", cwd=tmp_path)
        assert done.stderr.startswith("dit: ") and message in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
        assert (done.returncode, done.stdout) == (5, "") and not (tmp_path / "a.png").exists()


def test_a_network_that_gives_nan(tmp_path):
    folder = tmp_path / "nan"
    shutil.copytree(BUILTIN / "emoji", folder)
    weights = folder / "transformer/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        if name.startswith("proj_out"):  # the last layer: every output is NaN
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            content[start:end] = b"\xff\x7f" * ((end - start) // 2)
    weights.write_bytes(content)
    done = dit("generate", "x", "y", "-m", "nan", "-o", "out/", *FAST, cwd=tmp_path)
    assert done.returncode == 5 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("dit: the network gave NaN or infinity at t = ")
    assert "; use --dtype float32, or check the model's weights" in done.stderr
    assert not list((tmp_path / "out").glob("*.png"))


# places that cannot be written to


def limited(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def special(arguments, cwd, **options):
    return subprocess.run(
        [PROGRAM, "generate", *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        timeout=120,
        **options,
    )


def nothing_left(folder):
    return [p.name for p in folder.rglob("*") if p.is_file() and p.name != ".dit-manifest.jsonl"] == []


def test_a_full_disk(tmp_path):
    done = special(["x", "-o", "a.png", *FAST], tmp_path, preexec_fn=limited(1000))
    refused(done, 4, "dit: a.png: cannot be written: the file is larger than")
    assert nothing_left(tmp_path)
    many = special(["x", "-N", "4", "-o", "out/", *FAST], tmp_path, preexec_fn=limited(1000))
    refused(many, 4, "dit: out/x-0.png: cannot be written")
    assert nothing_left(tmp_path)


def test_stdout_on_a_full_disk(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [PROGRAM, "generate", "x", "-o", "-", *FAST],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    assert done.returncode == 4 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("dit: stdout: cannot be written: the disk is full")


def ordinary():
    """Give up root's right to write anywhere, so that permissions count in a container too."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def test_a_read_only_folder(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    for place in ("locked/a.png", "locked/", "locked/deep/{seed}.png"):
        done = special(["x", "-o", place, *FAST], tmp_path, preexec_fn=ordinary)
        assert done.stderr.startswith("dit: locked/"), done.stderr
        assert "cannot be written: permission denied; choose a folder" in done.stderr
        assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert list(locked.iterdir()) == []


@pytest.mark.parametrize(
    "place, message",
    [
        ("no/a.png", "no/a.png: cannot be written: the folder does not exist; create it first"),
        ("file/a.png", "file/a.png: cannot be written: its folder is a file"),
        ("a" * 300 + ".png", "aaa"),
    ],
)
def test_places_that_are_none(tmp_path, place, message):
    (tmp_path / "file").write_text("x")
    done = dit("generate", "x", "-o", place, *FAST, cwd=tmp_path)
    assert done.stderr.startswith(f"dit: {message}") and done.stderr.count("\n") == 1
    assert done.returncode == 4 and sorted(os.listdir(tmp_path)) == ["file"]


def test_a_closed_pipe_leaves_quietly_and_the_picture_whole(tmp_path):
    for arguments in (["-o", "-"], ["-o", "out/", "-N", "3"], ["--json", "-o", "j.png"]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [PROGRAM, "generate", "x", *arguments, *FAST],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (141, b"")
    assert dit("info", "out/x-0.png", cwd=tmp_path).returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".dit-manifest.jsonl", "x-0.png"]


def test_a_terminal_that_is_too_narrow(tmp_path):
    env = {"TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "5", "LINES": "30"}
    arguments = ["x", "-o", "a.png", "-q", "--preview", *FAST]
    code, stdout, shown = on_terminal(arguments, tmp_path, 5, env)
    assert (code, stdout) == (0, "a.png\n")
    assert shown.split() == "dit: --preview: the terminal is too narrow".split()
    done = dit("generate", "x", "-o", "b.png", "--preview", *FAST, cwd=tmp_path, env=env)
    assert done.stderr == "dit: --preview: stderr is not a terminal\n" and done.returncode == 0
    assert dit("generate", "--help", env={"COLUMNS": "5"}).returncode == 0


def test_bytes_are_not_sent_to_a_terminal(tmp_path):
    import pty

    master, slave = pty.openpty()
    done = subprocess.run(
        [PROGRAM, "generate", "x", "-o", "-"],
        stdout=slave,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )
    os.close(slave)
    os.close(master)
    assert done.returncode == 2
    assert done.stderr == "dit: -o -: standard output is a terminal; redirect it to a file or a pipe\n"


def test_an_option_without_effect_is_refused(tmp_path):
    done = dit("generate", "x", "--embedded-guidance", "3", "-o", "a.png", *FAST, cwd=tmp_path)
    refused(done, 7, "dit: --embedded-guidance 3: emoji takes no guidance as an input", tmp_path)


def test_transparency_of_a_model_without_it(tmp_path):
    facts = json.loads((BUILTIN / "emoji/dit.json").read_text())
    folder = tmp_path / "plain"
    shutil.copytree(BUILTIN / "emoji", folder)
    (folder / "dit.json").write_text(json.dumps(facts | {"alpha": False}))
    done = dit("generate", "x", "-m", str(Path("plain")), "--transparent", *FAST, cwd=tmp_path)
    refused(done, 7, "dit: --transparent: plain was not trained for transparency; use a model")
