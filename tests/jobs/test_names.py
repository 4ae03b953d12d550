"""Names of outputs: no prompt leaves its folder, no two outputs share a name."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dit_tools.core.errors import InputError, UsageError
from dit_tools.jobs.names import Destination, Names, destination, fill_template, slug, unique

RESERVED = {"con", "prn", "aux", "nul", *(f"{p}{n}" for p in ("com", "lpt") for n in range(10))}


def check_component(name):
    assert name and name not in (".", "..") and not set(name) & set('/\\:*?"<>|')
    assert all(ord(c) >= 32 and ord(c) != 127 for c in name)
    assert len(os.fsencode(name)) <= 255 and name == name.rstrip(". ")
    assert name.split(".")[0].rstrip().lower() not in RESERVED


@given(st.text(st.characters(), max_size=200))
@example("../../etc/passwd")
@example("CON")
@example("..")
@example("nul.")
@example("\ud800/\0")
@example("😀" * 300)
@example("𐐀" * 300)
@example("İ" * 100)
def test_any_prompt_gives_one_safe_component(prompt):
    assert len(slug(prompt)) <= 60
    for template in ("{prompt}", "{prompt}-{seed}.png", ".{prompt}", "{prompt}."):
        path = fill_template(template, {"prompt": prompt, "seed": 2**63 - 1})
        assert path.parent == Path(".") and len(path.parts) == 1
        check_component(path.name)


@given(st.text(st.characters(), max_size=60))
@example("com1")
@example("\udd00")
@example("a/../b")
@example("C:\\x")
@example("\u202egnp.exe")
def test_any_stem_gives_one_safe_component(stem):
    path = fill_template("out/{stem}/{stem}.png", {"stem": stem})
    assert path.parts[0] == "out" and len(path.parts) == 3
    check_component(path.parts[1])
    check_component(path.name)


def test_expand():
    fields = {"stem": "My Photo", "seed": 7, "index": 3, "prompt": "A Cat, on a  Mat!", "cfg": 7.5}
    assert fill_template("{stem}-{seed}-{index:04d}", fields) == Path("My Photo-7-0003")
    assert fill_template("../{prompt}.png", fields) == Path("../a-cat-on-a-mat.png")
    assert fill_template("/tmp/{{x}}/{cfg:.2f}.png", fields) == Path("/tmp/{x}/7.50.png")
    assert slug("猫 und Straße") == "猫-und-straße" and slug("!!!") == "untitled"
    undecodable = os.fsdecode(b"\xff\xfe")
    assert fill_template("{stem}", {"stem": undecodable}) == Path(undecodable)


@pytest.mark.parametrize(
    "template, word",
    [
        ("{sede}", "did you mean 'seed'"),
        ("{xyzzy}", "there are index, prompt, seed"),
        ("{seed.real}", "no field"),
        ("{seed!r}", "no field"),
        ("{}", "no field"),
        ("{seed", "lone '{'"),
        ("seed}", "lone '}'"),
        ("{seed:999999999d}", "no format"),
        ("{seed:{index}}", "lone|no field|no format"),
        ("{prompt:04d}", "not a number"),
    ],
)
def test_bad_templates(template, word):
    with pytest.raises(UsageError, match=word):
        fill_template(template, {"seed": 1, "index": 2, "prompt": "x"})


def test_too_long_a_name():
    with pytest.raises(InputError, match="255"):
        fill_template("{stem}-x", {"stem": "n" * 254})


def test_destination(tmp_path):
    default, folder = "{stem}-{seed}", str(tmp_path)
    assert destination("-", default) == Destination("stdout")
    assert destination(None, default) == Destination("template", "{stem}-{seed}.png")
    assert destination("a.jpg", default) == Destination("file", "a.jpg")
    assert destination("a", default, ".webp") == Destination("file", "a.webp")
    assert destination("v1.5", default) == Destination("file", "v1.5.png")
    assert destination("new/", default).template == "new/{stem}-{seed}.png"
    assert destination("{cfg:.2f}", default) == Destination("template", "{cfg:.2f}.png")
    assert destination(folder, default).template == f"{folder}/{{stem}}-{{seed}}.png"
    (tmp_path / "a{b}").mkdir()
    braces = destination(f"{folder}/a{{b}}", default)
    assert fill_template(braces.template, {"stem": "x", "seed": 1}) == tmp_path / "a{b}" / "x-1.png"
    with pytest.raises(UsageError):
        destination("", default)


def test_unique(tmp_path):
    path = tmp_path / "a.png"
    assert unique(path) == path
    path.touch()
    (tmp_path / "a-2.png").symlink_to("nowhere")
    assert unique(path) == tmp_path / "a-3.png"
    long = tmp_path / ("n" * 251 + ".png")
    long.touch()
    assert unique(long).name == "n" * 249 + "-2.png"


def test_names_of_a_run(tmp_path):
    where = destination(f"{tmp_path}/{{prompt}}", "")
    (tmp_path / "cat.png").touch()
    numbering, keeping = Names(where), Names(where, "keep")
    given = [numbering.claim({"prompt": p}).name for p in ("Cat", "dog", "dog", "DOG!")]
    assert given == ["cat-2.png", "dog.png", "dog-2.png", "dog-3.png"]
    assert [keeping.claim({"prompt": "cat"}).name for _ in range(2)] == ["cat.png", "cat-2.png"]


def test_one_file_for_many_outputs_and_case(tmp_path):
    names = Names(Destination("file", str(tmp_path / "x.png")))
    assert [names.claim({}).name for _ in range(3)] == ["x.png", "x-2.png", "x-3.png"]
    stems = Names(Destination("template", str(tmp_path / "{stem}.png")))
    claimed = [stems.claim({"stem": s}).name for s in ("A", "a", "e\u0301", "\u00e9")]
    assert claimed == ["A.png", "a-2.png", "e\u0301.png", "\u00e9-2.png"]


def test_many_outputs_of_one_name_take_linear_time(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr("dit_tools.jobs.names.os.path.lexists", lambda path: looked.append(path) or False)
    names = Names(Destination("file", str(tmp_path / "x.png")))
    given = [names.claim({}).name for _ in range(2000)]
    assert given[:2] == ["x.png", "x-2.png"] and given[-1] == "x-2000.png" and len(looked) == 2000
