"""The man pages are written from the code and are current."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dit_cli import manpages
from dit_cli.main import COMMANDS
from dit_cli.roff import escape, paragraphs, prose
from dit_tools.core import registry
from dit_tools.core.errors import ExitCode
from tests.support.program import python

ROOT = Path(__file__).parents[2]
CHECK = "import sys; from dit_cli.manpages import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return manpages.pages()


def test_the_pages_in_the_repository_are_current() -> None:
    assert manpages.difference(ROOT / "man") == ""


def test_check_shows_what_is_stale(tmp_path: Path) -> None:
    assert manpages.main([str(tmp_path)]) == 0
    done = python(CHECK, "--check", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    page = tmp_path / "dit-methods.1"
    page.write_text(page.read_text().replace("taylorseer", "tailorseer"))
    (tmp_path / "dit-gone.1").write_text("old\n")
    done = python(CHECK, "--check", str(tmp_path), env={"COLUMNS": "40"})
    assert done.returncode == 1 and "stale" in done.stderr
    assert "-\\fBtailorseer\\fR\n+\\fBtaylorseer\\fR\n" in done.stdout
    assert "--- man/dit-gone.1" in done.stdout
    manpages.main([str(tmp_path)])
    assert not (tmp_path / "dit-gone.1").exists()
    assert python(CHECK, "--check", str(tmp_path)).returncode == 0


def test_one_page_a_command(pages: dict[str, str]) -> None:
    assert set(pages) == {"dit.1", *(f"dit-{name}.1" for name in COMMANDS)}


def test_exit_codes_and_environment(pages: dict[str, str]) -> None:
    page = pages["dit.1"]
    status = page.partition(".SH EXIT STATUS")[2].partition(".SH")[0]
    found = {int(code) for code in re.findall(r"^\\fB(\d+)\\fR$", status, re.MULTILINE)}
    assert found == {int(code) for code in ExitCode}
    for name in ("DIT_CACHE", "NO_COLOR", "HF_HOME", "HF_HUB_OFFLINE"):
        assert f"\\fB{name}\\fR" in page


def test_every_method_and_parameter_is_there(pages: dict[str, str]) -> None:
    for category, flag in registry.CATEGORIES.items():
        for name in registry.names(category):
            assert f"\\fB{escape(name)}\\fR" in pages["dit-methods.1"]
            if category in registry.SAMPLING_CATEGORIES:
                assert f"\\fB{escape(name)}\\fR" in pages["dit-generate.1"]
        page = "dit-generate.1" if category in registry.SAMPLING_CATEGORIES else "dit-methods.1"
        assert escape(flag) in pages[page]
    assert "\\fBinterval=5\\fR (>= 1)" in pages["dit-methods.1"]


def test_subcommands_are_on_their_group_page(pages: dict[str, str]) -> None:
    for word in ("list", "show", "verify", "pull"):
        assert f".SS dit models {word}" in pages["dit-models.1"]


def test_roff_prints_text_as_it_is() -> None:
    assert prose("a-b\n c\\d") == "a\\-b c\\ed"
    assert prose(".dot") == "\\&.dot" and prose("'quote'") == "\\&\\(aqquote\\(aq"
    assert prose("``x^2`` is") == "\\fIx\\(ha2\\fR is"
    assert paragraphs("one\n\n\ntwo") == [".PP", "one", ".PP", "two"]


def test_every_page_is_sound_roff(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        known = r"\.(TH|SH|SS|PP|TP|IP|RS|RE|br|nh|ad l|\\\")"
        bad = [line for line in page.splitlines() if line[:1] in ".'" and not re.match(known, line)]
        assert not bad, name
        assert page.isascii(), name
        assert page.count(".RS") == page.count(".RE"), name
        assert max(map(len, page.splitlines())) < 1500, name
    if groff := shutil.which("groff"):
        for name, page in pages.items():
            done = subprocess.run([groff, "-man", "-Tutf8", "-ww", "-z"], input=page, text=True, capture_output=True)
            assert (done.returncode, done.stderr) == (0, ""), name
