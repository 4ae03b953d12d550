"""``dit generate`` as a user starts it, with the built-in model."""

import json
import signal
import subprocess

import numpy as np
import pytest

from dit_tools.media import image, metadata
from tests.jobs.test_record import validator
from tests.support.program import PROGRAM, dit, environment, python
from tests.support.terminal import on_terminal

FAST = ("--steps", "2", "--cfg-scale", "1")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def pixels(path):
    return image.read(path).pixels


def test_one_prompt_one_picture(tmp_path):
    done = dit("generate", "a red apple", "-o", "apple.png", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "apple.png\n", "")
    assert names(tmp_path) == ["apple.png"]
    picture = image.read(tmp_path / "apple.png")
    assert picture.pixels.shape == (128, 128, 3) and picture.pixels.std() > 0.02
    record = metadata.read_record(tmp_path / "apple.png")
    validator("record").validate(record)
    assert (record["prompt"], record["seed"], record["backend"]) == ("a red apple", 0, "onnx")


def test_the_same_command_gives_the_same_pixels_and_another_seed_others(tmp_path):
    for name, seed in (("a.png", "1"), ("b.png", "1"), ("c.png", "2")):
        assert dit("generate", "cat", "-s", seed, "-o", name, *FAST, cwd=tmp_path).returncode == 0
    first, second, other = (pixels(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_the_onnx_path_imports_neither_torch_nor_diffusers(tmp_path):
    code = """
import sys
from dit_cli.main import run
assert run(sys.argv[1:]) == 0
print([name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
"""
    done = python(code, "generate", "cat", "-o", "a.png", *FAST, cwd=tmp_path)
    assert done.stdout == "a.png\n[]\n", done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("x", "--stpes", "3"), ("x", "--solver", "e")])
def test_help_and_typing_errors_import_nothing_heavy(arguments):
    code = """
import sys
from dit_cli import main
try:
    main.main(["generate", *sys.argv[1:]])
except SystemExit:
    heavy = ("numpy", "rich", "PIL", "torch", "onnxruntime", "tqdm")
    print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    assert python(code, *arguments).stderr.splitlines()[-1] == "[]"


def test_help_names_every_option_and_fits(tmp_path):
    from dit_tools.jobs.options import OPTIONS

    done = dit("generate", "--help")
    assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
    for name in OPTIONS:
        assert f"--{name.replace('_', '-')}" in done.stdout


def test_stdout_gets_the_bytes(tmp_path):
    done = subprocess.run(
        [PROGRAM, "generate", "cat", "-o", "-", "--format", "webp", *FAST],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 and done.stderr == b"" and names(tmp_path) == []
    assert image.read(done.stdout).format == "webp"
    assert metadata.read_record(done.stdout)["prompt"] == "cat"


def test_prompts_from_stdin_and_files(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"prompt": "dog", "seed": 4, "steps": 1}\n"fox"\n')
    done = subprocess.run(
        [PROGRAM, "generate", "-", "--prompt-file", "x.jsonl", "-o", "out/", *FAST],
        input="# a comment\ncat\n",
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["out/cat-0.png", "out/dog-4.png", "out/fox-0.png"]
    assert metadata.read_record(tmp_path / "out/dog-4.png")["steps"] == 1


def test_events_keep_to_the_published_schema(tmp_path):
    done = dit("generate", "cat", "-N", "2", "-o", "out/", "--json", "--grid", "g.png", *FAST, cwd=tmp_path)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        validator("events").validate(event)
    assert [event["type"] for event in events] == ["start", "item", "item", "done"]
    assert events[-1]["files"] == ["g.png"] and events[-1]["written"] == 2
    again = dit("generate", "cat", "-N", "2", "-o", "out/", "--json", *FAST, cwd=tmp_path)
    kinds = [json.loads(line)["type"] for line in again.stdout.splitlines()]
    assert kinds == ["start", "skip", "skip", "done"]


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_the_end_of_a_long_prompt_that_is_not_read_is_said_once(tmp_path, backend):
    long = "a red apple and a green pear on a wooden Table, 3d"
    given = ("--backend", backend, "-o", "out/", *FAST)
    done = dit("generate", long, "a red apple", "-N", "2", *given, cwd=tmp_path)
    assert done.returncode == 0 and len(done.stdout.split()) == 4
    [line] = done.stderr.splitlines()
    assert line.endswith("the prompt is too long for the model; this part is not read: table, 3d")
    done = dit("generate", long, "a red apple", "--json", "--overwrite", *given, cwd=tmp_path)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        validator("events").validate(event)
    assert [event.get("unread") for event in events] == [None, "table, 3d", None, None]
    done = dit("generate", "a red apple", "--max-tokens", "3", "--overwrite", *given, cwd=tmp_path)
    assert "this part is not read: apple" in done.stderr


def test_errors_are_events_too():
    done = dit("generate", "cat", "--steps", "0", "--json")
    error, last = (json.loads(line) for line in done.stdout.splitlines())
    validator("events").validate(error)
    validator("events").validate(last)
    assert (error["error"], error["exit"], last["exit"], done.returncode) == ("usage", 2, 2, 2)
    assert done.stderr == "dit: --steps 0: out of range; give 1..1000\n"


def test_dry_run_makes_nothing(tmp_path):
    done = dit("generate", "cat", "dog", "-N", "2", "-o", "out/", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0 and names(tmp_path) == []
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        "out/cat-0.png",
        "out/cat-1.png",
        "out/dog-0.png",
        "out/dog-1.png",
    ]
    assert done.stderr == "dit: 4 images to make, 0 already done\n"
    shown = dit("generate", "cat", "--dry-run", "--json", "--cfg-scale", "0", cwd=tmp_path)
    item = json.loads(shown.stdout)
    validator("events").validate(item)
    assert item["dry_run"] is True and item["settings"]["cfg_scale"] == 0


def test_transparent_and_on_a_colour(tmp_path):
    assert dit("generate", "cat", "-o", "a.png", "--transparent", *FAST, cwd=tmp_path).stderr == ""
    assert dit("generate", "cat", "-o", "b.jpg", "--background", "blue", *FAST, cwd=tmp_path).returncode == 0
    assert image.read(tmp_path / "a.png").alpha and not image.read(tmp_path / "b.jpg").alpha
    assert metadata.read_record(tmp_path / "b.jpg")["background"] == "#0000ff"


def test_sweep_sheet_and_film(tmp_path):
    done = dit(
        "generate",
        "cat",
        "--sweep",
        "cfg=1,4",
        "--sweep",
        "steps=2,3",
        "-o",
        "out/",
        "--save-steps",
        "film-{index}.gif",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "out/sweep.png" in done.stdout and "film-4.gif" in done.stdout
    assert "cat-0-cfg4-steps3.png" in names(tmp_path / "out")
    height, width, _ = pixels(tmp_path / "out/sweep.png").shape
    assert height > 2 * 128 and width > 2 * 128


def test_layers_of_options(tmp_path):
    presets = tmp_path / "config/dit/presets"
    presets.mkdir(parents=True)
    (presets / "mine.toml").write_text("steps = 3\nseed = 9\ncfg-scale = 1\nnegative = 'x'\n")
    (tmp_path / "c.toml").write_text("steps = 2\nseed = 8\n")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    arguments = ("--preset", "mine", "--config", "c.toml", "-o", "a.png", "--seed", "7")
    done = dit("generate", "cat", *arguments, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    record = metadata.read_record(tmp_path / "a.png")
    assert [record[key] for key in ("steps", "seed", "cfg_scale", "negative_prompt")] == [
        3,
        7,
        1,
        "x",
    ]  # command line, preset named on it, config
    again = dit("generate", "--from-image", "a.png", "-o", "b.png", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def start(arguments, cwd):
    return subprocess.Popen(
        [PROGRAM, "generate", *arguments],
        cwd=cwd,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


def whole(folder):
    """Every image of a folder can be read, and nothing half-written lies there."""
    found = [path for path in folder.iterdir() if path.suffix == ".png"]
    for path in found:
        assert metadata.read_record(path)["prompt"] == "cat" and pixels(path).shape[2] == 3
    assert not [path for path in folder.iterdir() if path.name.startswith(".dit-part")]
    return len(found)


def test_ctrl_c_once_finishes_the_picture_and_the_next_run_goes_on(tmp_path):
    arguments = ("cat", "-N", "40", "-o", "out/", "--steps", "4")
    process = start(arguments, tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[0].startswith("dit: finishing the current item")
    made = whole(tmp_path / "out")
    assert 1 <= made < 40
    rest = dit("generate", *arguments, "--dry-run", cwd=tmp_path)
    assert rest.stderr == f"dit: {40 - made} images to make, {made} already done\n" or made == 39


def test_ctrl_c_twice_stops_and_leaves_nothing_half_written(tmp_path):
    process = start(("cat", "-N", "40", "-o", "out/", "--steps", "30"), tmp_path)
    folder = tmp_path / "out"
    process.stdout.readline()  # the first image is there, the second under way
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("dit: finishing")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert whole(folder) in (1, 2)


def test_a_killed_run_goes_on(tmp_path):
    arguments = ("cat", "-N", "3", "-o", "out/", "--steps", "8")
    process = start(arguments, tmp_path)
    process.stdout.readline()
    process.kill()
    process.communicate()
    before = whole(tmp_path / "out")
    done = dit("generate", *arguments, cwd=tmp_path)
    assert done.returncode == 0 and len(done.stdout.split()) == 3  # finished ones are named, too
    assert f"{before} image" in done.stderr or not before
    assert whole(tmp_path / "out") == 3


def test_sigterm_stops_with_its_code(tmp_path):
    process = start(("cat", "-N", "40", "-o", "out/", "--steps", "30"), tmp_path)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143 and whole(tmp_path / "out") >= 1


def test_progress_is_shown_on_a_terminal_only(tmp_path):
    code, stdout, shown = on_terminal(["cat", "-o", "a.png", *FAST], tmp_path, columns=80)
    assert (code, stdout) == (0, "a.png\n")
    assert "steps: 100%" in shown and "2/2" in shown
    assert on_terminal(["cat", "-o", "b.png", "-q", *FAST], tmp_path, 80)[2] == ""


def test_preview_is_drawn_on_a_terminal(tmp_path):
    arguments = ["cat", "-o", "a.png", "-q", "--preview", *FAST]
    env = {"TERM": "xterm-256color", "NO_COLOR": "", "COLUMNS": "40", "LINES": "30"}
    code, stdout, shown = on_terminal(arguments, tmp_path, 40, env)
    assert (code, stdout) == (0, "a.png\n") and shown.count("▀") > 100
