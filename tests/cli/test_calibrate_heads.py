"""``dit calibrate --heads``: what it writes, what it prints, what it refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dit_cli.calibrate import _heads, _toml
from dit_tools.core import spec
from dit_tools.core.errors import ExitCode, InputError, UsageError
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from dit_tools.tasks.calibrate.calibration_run import CalibrationRun
from dit_tools.tasks.generate import scorer
from tests.support import pixart, small
from tests.support.program import dit


class Taste:
    """Likes bright latents."""

    def __init__(self, model: Any, prompts: Any):
        pass

    def scores(self, x0: Any) -> list[float]:
        return x0.mean((1, 2, 3)).tolist()


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> CalibrationRun:
    monkeypatch.setattr(scorer, "LatentScorer", Taste)
    model = model_from_pipeline(pixart.pipeline(), name="tiny", revision="0", device="cpu", dtype="float32")
    plan = small.plan(steps=2, guidance="soft-pag:scale=2,weight=3,share=1")
    return CalibrationRun(model, plan, ("a", "b"), (model.defaults.size,) * 2)


def test_the_file_is_a_config_that_names_the_heads(session, tmp_path, capsys):
    path = tmp_path / "heads.toml"
    assert _heads(session, 2, path, json=False) == ExitCode.OK
    said = capsys.readouterr()
    assert said.out == f"{path}\n" and said.err.startswith("dit: cosine similarity to the prompt: ")
    guidance = spec.parse("guidance", tomllib.loads(path.read_text())["guidance"])
    assert (guidance.scale, guidance.weight, guidance.share) == (2, 3, 1)
    assert len(guidance.heads.split("+")) == 2


def test_without_a_file_the_spec_is_printed(session, capsys):
    _heads(session, 1, None, json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] is None and facts["guidance"].startswith("soft-pag:")
    assert facts["score"] > facts["plain"]


def test_places_that_cannot_be(tmp_path: Path):
    assert _toml(None, False) is None
    with pytest.raises(UsageError, match="--heads writes a .toml file"):
        _toml(str(tmp_path / "heads.json"), False)
    (tmp_path / "heads.toml").write_text("")
    with pytest.raises(UsageError, match="exists"):
        _toml(str(tmp_path / "heads.toml"), False)
    assert _toml(str(tmp_path / "heads.toml"), True) == tmp_path / "heads.toml"
    with pytest.raises(InputError):
        _toml(str(tmp_path / "no" / "heads.toml"), False)


def test_one_thing_at_a_time():
    for words in ([], ["--heads", "2", "--presets"]):
        done = dit("calibrate", *words)
        assert done.returncode == ExitCode.USAGE
        assert done.stderr == (
            "dit: dit calibrate needs one of --cache, --presets and --heads; give exactly one of them\n"
        )
