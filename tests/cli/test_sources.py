"""Where options come from, through the program: which source wins, and what is told."""

import json

import numpy as np
import pytest

from dit_tools.media import image
from tests.support.program import dit


def steps(*arguments, cwd):
    """The steps that a dry run would make."""
    done = dit("generate", "--dry-run", "--json", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    items = [json.loads(line) for line in done.stdout.splitlines()]
    return [item["settings"].get("steps") for item in items if item["type"] == "item"], done.stdout + done.stderr


def test_command_line_over_preset_over_config(tmp_path):
    """A preset that the command line names was beaten by the config it stands in."""
    (tmp_path / "c.toml").write_text("steps = 3\ncfg_scale = 2\n[preset.fine]\nsteps = 9\n")
    config = ("a cat", "--config", "c.toml")
    assert steps(*config, cwd=tmp_path)[0] == [3]
    assert steps(*config, "--preset", "fine", cwd=tmp_path)[0] == [9]
    assert steps(*config, "--preset", "fine", "--steps", "5", cwd=tmp_path)[0] == [5]


def test_a_prompt_that_is_a_file_is_told(tmp_path):
    (tmp_path / "b.latent").write_bytes(b"x")
    for name, told in (("b.latent", True), ("no such file", False)):
        error = steps(name, cwd=tmp_path)[1]
        assert ("is the path of a file" in error) == told


def test_lines_of_options_in_a_prompt_file(tmp_path):
    (tmp_path / "p.txt").write_text('--prompt "a red cat" --steps 3\na dog\n--steps=4 --prompt=bird\n')
    assert steps("--prompt-file", "p.txt", "--steps", "2", cwd=tmp_path)[0] == [3, 2, 4]


@pytest.mark.parametrize(
    "line, word",
    [
        ('--prompt "a cat', "quot"),
        ("--prompt a --promt b", "did you mean 'prompt'"),
        ("--prompt a red cat", "'red' belongs to no option"),
        ("--steps 3", "missing or empty"),
        ("--prompt a --prompt b", "twice"),
    ],
)
def test_broken_lines_of_options_are_named(tmp_path, line, word):
    (tmp_path / "p.txt").write_text(f"a dog\n{line}\n")
    done = dit("generate", "--dry-run", "--prompt-file", "p.txt", cwd=tmp_path)
    assert done.returncode == 4 and done.stderr.startswith("dit: p.txt:2: ") and word in done.stderr


def test_metadata_of_an_image_folder_is_a_prompt_file(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a cat"}\n')
    assert len(steps("--prompt-file", "metadata.jsonl", cwd=tmp_path)[0]) == 1


def test_figures_say_how_far_they_can_be_trusted(tmp_path):
    """100 % of two candidate prompts is little, and a distance of eight images is noise."""
    for index in range(4):
        pixels = np.random.default_rng(index).random((64, 64, 3), np.float32)
        record = {"version": 1, "prompt": ("a cat", "a dog")[index % 2]}
        (tmp_path / f"{index}.png").write_bytes(image.encode(pixels, "png", record=record))
    done = dit("eval", "0.png", "1.png", "2.png", "3.png", "--metric", "retrieval", cwd=tmp_path)
    assert "each from 2 prompts; chance is 50 %" in done.stdout
    done = dit("eval", "0.png", "1.png", "--metric", "frechet", "-r", "2.png", "-r", "3.png", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["note"] == "mostly noise: 2 images in a set, 512 are needed"
