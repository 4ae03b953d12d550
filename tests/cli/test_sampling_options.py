"""Options of sampling in every command that samples: they act and are recorded, or are refused with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dit_tools.media import image
from dit_tools.media.latent_file import unpack_latent

EDIT = ("edit", "apple.png", "a green apple", "--source-prompt", "a red apple", "--steps", "8", "--json")
INVERT = ("invert", "apple.png", "-p", "a red apple", "--steps", "4", "--json")
STREAM = ("generate", "a green apple", "--stream", "apple.png", "-o", "frames/", "--steps", "4", "--json")


def dit(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = "from dit_cli import program; program()"
    return subprocess.run([sys.executable, "-c", code, *words], cwd=place, text=True, capture_output=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image and a latent file of it, inverted inexactly."""
    made = tmp_path_factory.mktemp("options")
    assert dit(made, "generate", "a red apple", "--steps", "4", "-o", "apple.png").returncode == 0
    assert dit(made, *INVERT, "--inversion", "ddim", "-o", "ddim.latent").returncode == 0
    return made


def record_of(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return next(e["record"] for e in map(json.loads, done.stdout.splitlines()) if e["type"] == "item")


@pytest.mark.parametrize("option", [("--cache", "output:interval=2"), ("--cache", "taylorseer"), ("--tokens", "ras")])
def test_an_edit_takes_them_and_its_record_says_so(place, option):
    plain = record_of(dit(place, *EDIT, "--backend", "torch", "-o", "plain.png", "--overwrite"))
    record = record_of(dit(place, *EDIT, "--backend", "torch", "-o", "other.png", "--overwrite", *option))
    name = option[0].removeprefix("--")
    assert record[name].startswith(option[1].partition(":")[0]) and plain.get(name, "none") == "none"
    one, two = (image.read(place / f"{file}.png").pixels for file in ("plain", "other"))
    assert not np.array_equal(one, two)


def test_an_edit_that_guides_itself_takes_the_scale_and_records_no_solver(place):
    record = record_of(dit(place, *EDIT, "--cfg-scale", "5", "-o", "scale.png", "--overwrite"))
    assert "target_scale=5" in record["method"]
    assert not {"solver", "guidance", "cfg_scale"} & record.keys()
    drawn = record_of(dit(place, *EDIT, "--method", "img2img", "--solver", "euler", "-o", "i.png", "--overwrite"))
    assert drawn["solver"] == "euler"


def test_an_inexact_inversion_takes_a_cache_there_and_back(place):
    done = dit(
        place, *INVERT, "--inversion", "ddim", "--cache", "output:warmup=1", "-o", "cached.latent", "--overwrite"
    )
    assert done.returncode == 0, done.stderr
    assert unpack_latent(str(place / "cached.latent")).record["cache"].startswith("output")
    words = ("generate", "--from-latent", "ddim.latent", "--cache", "output:warmup=1", "-o", "back.png", "--json")
    assert record_of(dit(place, *words, "--overwrite"))["cache"].startswith("output")


REFUSED = [
    (EDIT, ("--solver", "heun"), "--solver heun: --method flowedit makes its own steps"),
    (EDIT, ("--guidance", "apg"), "--guidance apg: --method flowedit guides by its own scale"),
    (EDIT, ("--combine", "superdiff"), "--combine superdiff: it makes the steps itself"),
    (EDIT, ("--highres", "diffusehigh"), "--highres diffusehigh: it draws from noise at several sizes"),
    (EDIT, ("--method", "boundary", "--cache", "output"), "does not go through the times once"),
    (EDIT, ("--method", "masactrl", "--cache", "output"), "looks into every call of the network"),
    (EDIT, ("--method", "inversion", "--inversion", "edict", "--cache", "output"), "is exact only where both ways"),
    (EDIT, ("--method", "flowedit:target_scale=2", "--cfg-scale", "5"), "gives it too; give one of them"),
    (INVERT, ("--cache", "output"), "--inversion edict is exact only where both ways"),
    (INVERT, ("--inversion", "ddim", "--cache", "ertacache"), "it is calibrated for falling times"),
    (INVERT, ("--inversion", "ddim", "--combine", "superdiff"), "--combine superdiff: it makes the steps itself"),
    (STREAM, ("--cache", "output"), "it remembers one image from call to call"),
    (STREAM, ("--tokens", "ras"), "it remembers one image from call to call"),
    (STREAM, ("--attention", "msw"), "it remembers one image from call to call"),
    (STREAM, ("--highres", "time-aware"), "it changes with time"),
    (STREAM, ("--highres", "diffusehigh"), "it draws from noise at several sizes, which --stream does not"),
]


@pytest.mark.parametrize(("words", "options", "reason"), REFUSED)
def test_what_cannot_be_used_is_refused_with_the_reason(place, words, options, reason):
    done = dit(place, *words, *options)
    assert done.returncode == 2 and reason in done.stderr + done.stdout


def test_a_scale_of_0_is_explained(place):
    done = dit(place, "generate", "cat", "--steps", "1", "--cfg-scale", "0", "-o", "zero.png")
    assert done.returncode == 0 and "scale 0 ignores the prompt; 1 means no guidance" in done.stderr
