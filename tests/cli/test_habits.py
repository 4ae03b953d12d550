"""What users of other programs and newcomers type: one line that names the right thing."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dit_cli import _foreign_options
from dit_cli.edit import command as edit
from dit_cli.generate import command as generate
from tests.support.program import dit


def own(command):
    """Long options of a command."""
    return {option for param in command.params for option in param.opts if option.startswith("--")} | {"--debug"}


@pytest.mark.parametrize("name", _foreign_options.OPTIONS)
def test_every_remedy_names_options_that_exist(name):
    """The table is checked against the commands: a renamed option may not leave a wrong remedy."""
    remedy = _foreign_options.OPTIONS[name]
    known = own(edit) if "dit edit" in remedy else own(generate)
    named = set(re.findall(r"--[a-z][a-z-]+", remedy))
    assert named <= known | {"--model"}
    assert named or "dit " in remedy or remedy in (_foreign_options.NONE, "set OMP_NUM_THREADS")


@pytest.mark.parametrize(
    "typed, line",
    [
        (("--cfg", "3"), "dit generate: No such option '--cfg'; use --cfg-scale"),
        (("--guidance_scale", "3"), "dit generate: No such option '--guidance_scale'; use --cfg-scale"),
        (("--sampling-method=euler",), "dit generate: No such option '--sampling-method'; use --solver"),
        (("--negative", "dog"), "dit generate: No such option '--negative'; use --negative-prompt"),
        (("--image", "a.png"), "No such option '--image'; give the image to 'dit edit IMAGE PROMPT'"),
        (("--guidance", "3.5"), "dit: --guidance 3.5: is a method, not a scale; did you mean --cfg-scale 3.5?"),
        (("--size", "130x70"), "size 130x70: neither side is a multiple of 32; the nearest size is 128x64"),
        (("--size", "512x"), "dit: --size 512x: not a size; give WIDTHxHEIGHT, such as 64x64"),
        (("--size", "x"), "dit: --size x: not a size; give WIDTHxHEIGHT, such as 64x64"),
        (("--stpes", "3"), "did you mean '--steps'?"),
    ],
)
def test_generate(typed, line, tmp_path):
    done = dit("generate", "a cat", *typed, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert line in done.stderr


@pytest.mark.parametrize("word, name", [("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")])
def test_short_names_of_types(word, name, tmp_path):
    done = dit("generate", "a cat", "--dtype", word, "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0 and f'"dtype": "{name}"' in done.stdout


def test_a_prompt_or_a_file_for_a_command(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"x")
    assert dit("a red apple", cwd=tmp_path).stderr.endswith("did you mean 'dit generate \"a red apple\"'?\n")
    assert "did you mean 'dit info a b.png' or 'dit edit a b.png PROMPT'?" in dit("a b.png", cwd=tmp_path).stderr
    assert "see 'dit --help'" in dit("apple", cwd=tmp_path).stderr


@pytest.mark.parametrize("command", [(), ("generate",), ("methods",), ("models",), ("models", "show")])
def test_short_help(command):
    short, long = dit(*command, "-h"), dit(*command, "--help")
    assert (short.returncode, short.stdout) == (0, long.stdout) and "Usage: " in short.stdout


def test_short_version():
    assert dit("-V").stdout == dit("--version").stdout != ""


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "dit_cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, dit("--version").stdout)


def test_an_unknown_method_is_one_short_line():
    done = dit("methods", "nosuch")
    assert (done.returncode, done.stderr) == (
        2,
        "dit: no method or category 'nosuch'; see 'dit methods' for all of them\n",
    )
    assert "did you mean 'taylorseer'?" in dit("methods", "taylorser").stderr


def test_a_folder_for_info(tmp_path):
    done = dit("info", ".", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (4, "dit: .: is a folder; give its images, such as 'dit info *.png'\n")


def test_an_empty_prompt_is_told(tmp_path):
    assert "the prompt is empty" in dit("generate", "", "--dry-run", cwd=tmp_path).stderr


@pytest.mark.parametrize("box", ["1,2,3", "1,2,3,4,5", "10x20,4"])
def test_a_box_with_a_side_missing(box, tmp_path):
    from dit_tools.core.errors import UsageError
    from dit_tools.tasks.edit.mask import read_mask

    with pytest.raises(UsageError, match="give LEFT,TOP,WIDTH,HEIGHT in pixels"):
        read_mask(box, (64, 64), [])
