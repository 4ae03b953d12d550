"""``dit replay`` as a user starts it, with the built-in model."""

import json

import numpy as np
import pytest

from dit_tools.media import image, metadata
from tests.jobs.test_record import validator
from tests.support.program import dit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("replay")
    arguments = ("--steps", "3", "--cfg-scale", "2", "--seed", "4", "-o")
    assert dit("generate", "cat", *arguments, "a.png", cwd=made).returncode == 0
    return made


def test_check_says_identical_and_writes_nothing(folder):
    before = sorted(folder.iterdir())
    done = dit("replay", "a.png", "--check", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "dit: a.png: identical\n"
    assert sorted(folder.iterdir()) == before


def test_it_writes_the_same_picture(folder):
    done = dit("replay", "a.png", "-o", "again.png", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "again.png\n", "")
    first, second = (image.read(folder / name).pixels for name in ("a.png", "again.png"))
    assert np.array_equal(first, second)


def test_a_changed_picture_gives_its_psnr_and_exit_code_1(folder):
    pixels = image.read(folder / "a.png").pixels.copy()
    pixels[0, 0] = 1 - pixels[0, 0]
    record = metadata.read_record(folder / "a.png")
    (folder / "b.png").write_bytes(image.encode(pixels, "png", record=record))
    done = dit("replay", "b.png", "--check", "--json", cwd=folder)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for event in events:
        validator("events").validate(event)
    assert done.returncode == 1 and not events[1]["identical"] and events[-1]["exit"] == 1
    assert 20 < events[1]["psnr"] < 60
    assert dit("replay", "b.png", "--check", "--min-psnr", "20", cwd=folder).returncode == 0


def test_another_revision_is_refused(folder):
    pixels, record = image.read(folder / "a.png").pixels, metadata.read_record(folder / "a.png")
    other = record | {"model_revision": "0123"}
    (folder / "c.png").write_bytes(image.encode(pixels, "png", record=other))
    done = dit("replay", "c.png", "--check", cwd=folder)
    assert done.returncode == 5 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("dit: c.png: made by revision 0123 of emoji, here is ")
    forced = dit("replay", "c.png", "--check", "--force", cwd=folder)
    assert (forced.returncode, forced.stderr) == (0, "dit: c.png: identical\n")


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (("none.png",), 4, "dit: none.png: cannot be read"),
        (("plain.png",), 4, "dit: plain.png: holds no 'dit' record; take what it says with dit"),
        (("a.png", "--min-psnr", "30"), 2, "dit: --min-psnr needs --check; add --check"),
        (("a.png", "-m", "nowhere/at/all"), 5, "dit: --model nowhere/at/all: no such file"),
        (("a.png", "-o", "no/x.png"), 4, "dit: no/x.png: cannot be written: the folder does not"),
        (("a.png", "-o", "-", "--json"), 2, "dit: --json and -o - both write to standard output"),
    ],
)
def test_mistakes(folder, arguments, code, message):
    plain = image.encode(np.zeros((8, 8, 3), np.float32), "png")
    (folder / "plain.png").write_bytes(plain)
    done = dit("replay", *arguments, cwd=folder)
    assert done.returncode == code and done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
