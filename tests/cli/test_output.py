"""What is said of failures at the end of a run."""

from __future__ import annotations

import pytest

from dit_cli import _output
from dit_tools.core.errors import DitError, ExitCode, InputError
from dit_tools.jobs.events import Outcome


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("a.png: not an image", 1),  # the reason names the file: once is enough
        ("the network gave NaN", 1),
    ],
)
def test_a_failed_file_is_named_once(capsys, message, named):
    outcome = Outcome(written=["b.png"], failed=[("a.png", InputError(message))])
    assert _output.finish(outcome) == ExitCode.PARTIAL
    said = capsys.readouterr().err
    assert said.count("a.png") == named and said.endswith((": a.png\n", "an image\n"))


def test_files_behind_one_reason_are_listed_together(capsys):
    failed: list[tuple[str, DitError]] = [(f"{i}.png", InputError("out of memory")) for i in range(7)]
    _output.finish(Outcome(written=["b.png"], failed=failed))
    said = capsys.readouterr().err
    assert said == "dit: 7 images failed: out of memory: 0.png, 1.png, 2.png, 3.png, 4.png, ...\n"
