"""Runs over many files through the installed program: started again, stopped at the start, many at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dit_tools.jobs.interrupt import NOTICE
from dit_tools.media import image
from tests.support.program import PROGRAM, dit, environment

FAST = ("--steps", "2")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three small images and one that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        pixels = np.full((24, 24, 3), index / 4, np.float32)
        (folder / f"{index}.png").write_bytes(image.encode(pixels, "png"))
    return tmp_path


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_an_edited_folder_is_not_edited_twice_and_the_paths_are_printed_again(photos: Path) -> None:
    words = ("edit", "photos", "a cat", "--method", "img2img", *FAST)
    first, second = dit(*words, cwd=photos), dit(*words, cwd=photos)
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout == "0-edit.png\n1-edit.png\n2-edit.png\n"
    assert listed(photos) == ["0-edit.png", "1-edit.png", "2-edit.png", "photos"]
    assert "3 images skipped" in second.stderr
    other = dit(*words, "--seed", "1", cwd=photos)  # another request makes other images
    assert other.stdout == "0-edit-2.png\n1-edit-2.png\n2-edit-2.png\n"


def test_one_name_that_is_too_long_and_one_broken_file_stop_no_folder(photos: Path) -> None:
    long = "n" * 251  # a legal name, to which "-edit" is one letter too many
    (photos / "photos/1.png").rename(photos / f"photos/{long}.png")
    (photos / "photos/2.png").write_bytes(b"no image")
    done = dit("edit", "photos", "a cat", "--method", "img2img", *FAST, "-o", "out/", cwd=photos)
    assert (done.returncode, done.stdout) == (3, "out/0-edit.png\n")
    assert "over 255 bytes" in done.stderr and "2.png" in done.stderr and "Traceback" not in done.stderr
    assert listed(photos / "out") == ["0-edit.png"]


def test_inverted_folders_go_on(photos: Path) -> None:
    words = ("invert", "photos", "--inversion", "ddim", *FAST, "-o", "latents/")
    first = dit(*words, cwd=photos)
    before = {name: (photos / "latents" / name).read_bytes() for name in listed(photos / "latents")}
    assert (first.returncode, len(before)) == (0, 3), first.stderr
    (photos / "latents/1.latent").unlink()
    second = dit(*words, cwd=photos)
    assert second.stdout.split() == ["latents/0.latent", "latents/2.latent", "latents/1.latent"]
    assert {name: (photos / "latents" / name).read_bytes() for name in listed(photos / "latents")} == before


def test_replays_of_a_folder_go_on(photos: Path) -> None:
    made = dit("generate", "red heart", "-N", "2", "-o", "made/", *FAST, cwd=photos)
    words = ("replay", *made.stdout.split(), "-o", "again/")
    first, second = dit(*words, cwd=photos), dit(*words, cwd=photos)
    assert first.stdout == second.stdout and len(listed(photos / "again")) == 2, second.stderr
    assert "2 images skipped" in second.stderr
    check = dit(*words, "--check", cwd=photos)  # a comparison is made whatever is there
    assert check.stderr.count("identical") == 2


def test_four_commands_at_once_with_one_name_keep_four_images(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(
            [PROGRAM, "generate", "cat", "--seed", str(seed), "-o", "x.png", *FAST],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    told = sorted(run.communicate(timeout=120)[0].strip() for run in runs)
    assert [run.returncode for run in runs] == [0] * 4
    assert told == listed(tmp_path) and len(set(told)) == 4
    assert len({(tmp_path / name).read_bytes() for name in told}) == 4


def handles_signals(process: subprocess.Popen[str]) -> bool:
    """Whether the program has begun; before that Python starts, and a signal ends that in its own way."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (caught,) = [line.split()[1] for line in lines if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says when the program has begun")
@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGHUP", 143), ("SIGINT", 130)])
def test_a_signal_at_the_start_has_its_code_and_prints_nothing(tmp_path: Path, name: str, code: int) -> None:
    """While modules are imported, a model is loaded, and the first image is made."""
    number = getattr(signal, name)
    for wait in (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0):
        process = subprocess.Popen(
            [PROGRAM, "generate", "cat", "-N", "99", "-o", "out/"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        while not handles_signals(process):
            time.sleep(0.002)
        time.sleep(wait)
        for _ in range(2 if name == "SIGINT" else 1):
            process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode == code, error
        # Two signals that come while the first one waits are one to the system: the run then ends in order.
        assert not error or error.startswith(f"{NOTICE}\n"), error
        assert all(line.startswith("dit: ") for line in error.splitlines()), error
        parts = os.listdir(tmp_path / "out") if (tmp_path / "out").is_dir() else []
        assert not [name for name in parts if name.startswith(".dit-part")]


def test_the_program_is_a_module_too() -> None:
    words = [sys.executable, "-m", "dit_cli", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.returncode == 0 and done.stdout.startswith("dit ")
