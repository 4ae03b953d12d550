"""``dit calibrate`` as a user starts it, and what ``dit generate`` does with its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.program import dit


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A data folder that holds nothing of the user's."""
    return {"XDG_DATA_HOME": str(tmp_path_factory.mktemp("data"))}


def test_a_calibration_is_found_by_itself_named_or_refused(tmp_path: Path, home: dict[str, str]) -> None:
    few = ("--steps", "5", "--backend", "onnx")
    lost = dit("generate", "pizza", "--cache", "ertacache", *few, cwd=tmp_path, env=home)
    assert (lost.returncode, lost.stdout) == (4, "")
    assert lost.stderr.startswith(
        "dit: --cache ertacache: not calibrated for emoji, 5 steps, dpmpp-2m, cfg:scale=2.5; "
        "run dit calibrate -m emoji --cache ertacache --steps 5 "
    )
    made = dit("calibrate", "--cache", "ertacache", *few, "--prompts", "2", "--seed", "1", cwd=tmp_path, env=home)
    assert made.returncode == 0, made.stderr
    path = Path(made.stdout.strip())
    assert path.is_file() and path.is_relative_to(home["XDG_DATA_HOME"])
    assert made.stderr.startswith("dit: ertacache: ") and "computed, PSNR" in made.stderr

    found = dit(
        "generate", "pizza", "--cache", "ertacache:threshold=1", *few, "-o", "a.png", "--json", cwd=tmp_path, env=home
    )
    assert found.returncode == 0, found.stderr
    mine = tmp_path / "mine.safetensors"
    path.rename(mine)
    named = dit(
        "generate",
        "pizza",
        "--cache",
        "ertacache:threshold=1",
        "--calibration",
        mine,
        *few,
        "-o",
        "b.png",
        "--json",
        cwd=tmp_path,
        env=home,
    )
    assert named.returncode == 0, named.stderr
    record = json.loads(named.stdout.splitlines()[1])["record"]
    assert "mine.safetensors" in record["cache"] and str(tmp_path) not in record["cache"]
    assert (tmp_path / "a.png").read_bytes()[:8] == (tmp_path / "b.png").read_bytes()[:8]

    refused = dit(
        "generate",
        "pizza",
        "--cache",
        "ertacache",
        "--calibration",
        mine,
        "--steps",
        "6",
        "--backend",
        "onnx",
        cwd=tmp_path,
        env=home,
    )
    assert (refused.returncode, refused.stdout) == (4, "")
    assert refused.stderr.startswith("dit: --calibration mine.safetensors: made for steps 5, not 6; run dit calibrate")
    assert len(refused.stderr.splitlines()) == 1


def test_misuse_is_told_before_a_model_is_loaded(tmp_path: Path, home: dict[str, str]) -> None:
    for words, line in (
        ((), "dit: dit calibrate needs one of --cache, --presets and --heads; give exactly one of them\n"),
        (
            ("--cache", "output"),
            "dit: --cache output: nothing to calibrate; choose from ertacache, harmonica, ilf, magcache\n",
        ),
        (("--cache", "magcache", "-o", "x.json"), "dit: -o x.json: not a .safetensors file; name it x.safetensors\n"),
    ):
        done = dit("calibrate", *words, cwd=tmp_path, env=home)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
