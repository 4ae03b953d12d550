"""What is said of failures at the end of a run."""

from __future__ import annotations

import pytest

from dit_cli import telling
from dit_tools.core.errors import DitError, ExitCode, InputError
from dit_tools.generating.events import Outcome


@pytest.mark.parametrize(("message", "named"), [
    ("a.png: not a picture", 1),  # the reason names the file: once is enough
    ("the network gave NaN", 1),
])  # fmt: skip
def test_a_failed_file_is_named_once(capsys, message, named):
    outcome = Outcome(written=["b.png"], failed=[("a.png", InputError(message))])
    assert telling.finish(outcome) == ExitCode.PARTIAL
    said = capsys.readouterr().err
    assert said.count("a.png") == named and said.endswith((": a.png\n", "a picture\n"))


def test_files_behind_one_reason_are_listed_together(capsys):
    failed: list[tuple[str, DitError]] = [
        (f"{i}.png", InputError("out of memory")) for i in range(7)
    ]
    telling.finish(Outcome(written=["b.png"], failed=failed))
    said = capsys.readouterr().err
    assert said == "dit: 7 pictures failed: out of memory: 0.png, 1.png, 2.png, 3.png, 4.png, ...\n"
