"""Every `dit` command of README and docs is one that the program understands: options, methods, parameters."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from dit_cli.main import COMMANDS, root

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def commands(text: str) -> list[str]:
    """Command lines of ``dit`` in fenced blocks: continued lines are joined, pipes and lists are split."""
    found = []
    for language, block in FENCE.findall(text):
        if language not in ("", "sh", "bash"):
            continue
        for line in re.findall(r".*\bdit .*", re.sub(r"\\\n\s*", " ", block)):
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split, lexer.commenters = True, "#"
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("|&;"):
                    if words and Path(words[0]).name == "dit":
                        found.append(shlex.join(words[1:]))
                    words = []
                elif word not in ("<", ">"):
                    words.append(word)
    return found


CASES = [(page.name, line) for page in PAGES for line in dict.fromkeys(commands(page.read_text(encoding="utf-8")))]


@pytest.mark.parametrize(("page", "line"), CASES, ids=lambda value: value)
def test_a_command_of_the_docs_is_understood(page: str, line: str) -> None:
    name, *arguments = shlex.split(line)
    assert name in COMMANDS or name.startswith("-") or name == "help", f"{page}: dit {line}"
    if name not in COMMANDS:
        return
    program = root()
    with program.make_context("dit", [], resilient_parsing=True) as context:
        _, command, _ = program.resolve_command(context, [name])
        try:
            with command.make_context(name, arguments, parent=context):
                pass
        except typer.Exit as leave:  # 'help' of a method or a command
            assert leave.exit_code == 0


def test_the_docs_show_commands_of_every_kind() -> None:
    shown = {shlex.split(line)[0] for _, line in CASES}
    assert len(CASES) > 60 and shown >= set(COMMANDS) - {
        "restore",
        "superres",
        "compress",
        "degrade",
        "tryon",
        "distill",
    }


def test_lines_are_split_as_a_shell_does() -> None:
    page = "```sh\nffmpeg -i a | dit generate - -o x \\\n  && dit info x.png  # a comment\nsed s/dit/x/\n```\n"
    assert commands(page) == ["generate - -o x", "info x.png"]
