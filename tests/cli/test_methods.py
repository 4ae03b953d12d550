"""``dit methods`` and the options that choose a method."""

from __future__ import annotations

import json
import re

import pytest

from dit_tools.core import registry
from dit_tools.core.citations import bibtex, key
from dit_tools.core.registry import MethodInfo
from tests.support.program import dit

ALL = {(room, name) for room in registry.CATEGORIES for name in registry.names(room)}


def info(paper: str, title: str = "On the Origin of Noise", authors: str = "Ann, Bob") -> MethodInfo:
    return MethodInfo("caching", "some", paper, title, 2024, authors, frozenset(), None)


def test_the_list_names_every_method_under_its_room() -> None:
    done = dit("methods")
    assert done.returncode == 0 and done.stderr == ""
    found, category = set(), ""
    for line in done.stdout.splitlines():
        if heading := re.fullmatch(r"([\w.]+) \((--\w+)\)", line):
            category = heading[1]
            assert registry.CATEGORIES[category] == heading[2]
        elif re.match(r"  \S", line):
            found.add((category, line.split()[0]))
    assert found == ALL
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("word", ["caching", "cache", "--cache"])
def test_a_room_by_any_of_its_names(word: str) -> None:
    done = dit("methods", "--json", "--", word)
    names = [json.loads(line)["name"] for line in done.stdout.splitlines()]
    assert names == registry.names("caching")


def test_json_says_everything_about_a_method() -> None:
    lines = [json.loads(line) for line in dit("methods", "--json").stdout.splitlines()]
    assert {(line["category"], line["name"]) for line in lines} == ALL
    taylor = next(line for line in lines if line["name"] == "taylorseer")
    assert taylor["flag"] == "--cache" and taylor["paper"] == "arXiv:2503.06923"
    assert taylor["needs"] == ["stack"] and taylor["identity"] == {"interval": 1}
    order = next(p for p in taylor["parameters"] if p["name"] == "order")
    assert (order["type"], order["default"], order["ge"], order["le"]) == ("int", 1, 0, 4)
    assert "degree" in order["help"]
    types = {p["type"] for line in lines for p in line["parameters"]}
    assert {"range", "str|none", "bool", "float"} <= types
    assert all(line["summary"] and "``" not in line["summary"] for line in lines)


def test_a_method_is_explained() -> None:
    text = dit("methods", "taylorseer").stdout
    assert text.startswith("--cache taylorseer\n\nForecast block outputs by a Taylor series")
    for part in (
        "order=1 (>= 0, <= 4)",
        "interval=5 (>= 1)",
        "arXiv:2503.06923",
        "Needs: stack",
        "Changes nothing at: interval=1",
        "form=taylor (taylor|newton)",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_name_in_two_rooms_is_explained_twice_and_a_room_narrows_it() -> None:
    both = dit("methods", "none").stdout
    assert "--guidance none\n" in both and "--cache none\n" in both
    one = dit("methods", "caching", "none").stdout
    assert "--guidance none\n" not in one and "--cache none\n" in one


def test_spelling_with_underscore() -> None:
    assert dit("methods", "dpmpp_2m").stdout == dit("methods", "dpmpp-2m").stdout != ""


def test_unknown_words_and_contradictions() -> None:
    done = dit("methods", "taylorser")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "dit: no method or category 'taylorser'; did you mean 'taylorseer'?\n"
    assert dit("methods", "solvers", "taylorseer").returncode == 2
    done = dit("methods", "--bib", "--json")
    assert (done.returncode, done.stderr) == (2, "dit: --bib and --json exclude each other; give one of them\n")


def test_bib_has_one_entry_a_paper() -> None:
    text = dit("methods", "--bib").stdout
    papers = {registry.get(category, name).info.paper for category, name in ALL} - {""}
    numbers = re.findall(r"^  (?:eprint|doi) = \{(.*)\},$", text, re.MULTILINE)
    assert sorted(numbers) == sorted(paper.partition(":")[2] for paper in papers)
    keys = re.findall(r"^@misc\{(\w+),$", text, re.MULTILINE)
    assert len(keys) == len(set(keys)) == len(numbers)
    assert text.count("{") == text.count("}")


def test_one_entry() -> None:
    assert (
        dit("methods", "taylorseer", "--bib").stdout
        == """\
@misc{liu2025reusing,
  title = {{From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers}},
  author = {Liu and Zou and Lyu and Chen and Zhang},
  year = {2025},
  eprint = {2503.06923},
  archivePrefix = {arXiv},
}
"""
    )


def test_bibtex_of_odd_papers() -> None:
    assert key(info("arXiv:1")) == "ann2024origin"
    assert bibtex([info(""), info("", title="")]).count("@misc") == 1
    twice = bibtex([info("arXiv:1"), info("arXiv:1"), info("arXiv:2")])
    assert re.findall(r"@misc\{(\w+)", twice) == ["ann2024origin", "ann2024originb"]
    odd = bibtex([info("doi:10.1/a_b", "50% of $x_1$ & {y}", "Ann, et al.")])
    assert r"title = {{50\% of \$x\_1\$ \& \{y\}}}" in odd
    assert "author = {Ann and others}" in odd and "doi = {10.1/a_b}" in odd


@pytest.mark.parametrize("flag", sorted(set(registry.SAMPLING_CATEGORIES.values())))
def test_help_as_a_choice_lists_the_room(flag: str) -> None:
    category = next(category for category, its in registry.SAMPLING_CATEGORIES.items() if its == flag)
    done = dit("generate", flag, "help")
    assert done.returncode == 0 and done.stderr == ""
    named = [line.split()[0] for line in done.stdout.splitlines() if line[:1] != " "]
    assert named == registry.names(category)
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_help_of_a_choice_explains_it() -> None:
    done = dit("generate", "--cache", "taylorseer:help")
    assert done.returncode == 0 and "interval=5 (>= 1)" in done.stdout
    assert dit("generate", "--cache", "nope:help").returncode == 2
