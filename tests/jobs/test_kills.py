"""Runs over many images, killed at random moments: each item once, the same bytes, nothing left."""

from __future__ import annotations

import os

import pytest

from benchmarks import kills

COUNT = os.environ.get("DIT_KILLS", "3")
"""Kills per command; ``DIT_KILLS=50 pytest tests/jobs/test_kills.py`` is the whole proof."""


@pytest.mark.slow
@pytest.mark.parametrize("command", kills.COMMANDS)
def test_a_killed_run_goes_on_to_the_same_files(command, capsys):
    assert kills.main([command, "--kills", COUNT, "--items", "8" if int(COUNT) < 20 else "60"]) == 0
    assert f"{COUNT} kills" in capsys.readouterr().out


def test_the_check_itself_fails_where_something_differs(tmp_path):
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"x")
    kills.check(tmp_path, "killed")
    for name, content in (("a", b"y"), ("a-2", b"x"), (".dit-part-1", b"")):
        (tmp_path / "killed" / name).write_bytes(content)
        with pytest.raises(SystemExit, match=name):
            kills.check(tmp_path, "killed")
        (tmp_path / "killed" / name).unlink()
        (tmp_path / "killed" / "a").write_bytes(b"x")
