"""Prompt files in three formats, and every way in which they are wrong, with its line."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.core.errors import DitError, InputError
from dit_tools.jobs import prompts
from dit_tools.jobs.prompts import PromptItem, read_prompts

OPTIONS = {"cfg-scale", "seed", "negative_prompt"}


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_text(tmp_path):
    path = write(tmp_path, "p.txt", "\ufeffa cat\r\n# no\n\n  {a|b} dog # yes \n\\#tag\nlast")
    items = read_prompts(path)
    assert [(i.prompt, i.line) for i in items] == [("a cat", 1), ("{a|b} dog # yes", 4), ("#tag", 5), ("last", 6)]
    assert items[0] == PromptItem("a cat", {}, 1, str(path))


def test_csv(tmp_path):
    text = "\ufeffseed,Prompt\n".lower() + '1,"a ""big"" cat,\nblack"\n\n,dog\n3,猫\n'
    items = read_prompts(write(tmp_path, "p.csv", text), options=OPTIONS)
    assert [(i.prompt, i.options, i.line) for i in items] == [
        ('a "big" cat,\nblack', {"seed": "1"}, 2),
        ("dog", {}, 5),
        ("猫", {"seed": "3"}, 6),
    ]


def test_jsonl(tmp_path):
    lines = ['{"prompt": "cat", "cfg-scale": 3.5, "seed": null}', "", '"dog"', '{"prompt":"x","seed":7}']
    items = read_prompts(write(tmp_path, "p.jsonl", "\n".join(lines)), options=OPTIONS)
    assert [(i.prompt, i.options, i.line) for i in items] == [
        ("cat", {"cfg_scale": 3.5, "seed": None}, 1),
        ("dog", {}, 3),
        ("x", {"seed": 7}, 4),
    ]


def test_stdin_and_explicit_format():
    assert read_prompts("-", io.BytesIO(b"{a|b}\nx"))[0] == PromptItem("{a|b}", {}, 1, "-")
    assert read_prompts("-", io.BytesIO(b'"a"'), format="jsonl")[0].prompt == "a"


@pytest.mark.parametrize(
    "name, content, word",
    [
        ("p.txt", "", "holds no prompt"),
        ("p.txt", "# only\n\n", "holds no prompt"),
        ("p.txt", b"ok\n\xff\xfe\n", ":2: not UTF-8"),
        ("p.txt", "a\x00b", ":1: holds a zero byte"),
        ("p.txt", "ok\n" + "x" * 100_001, ":2: a prompt of 100001 bytes"),
        ("p.txt", "x" * (2 << 20), ":1: a line of over"),
        ("p.json", "[]", "give .txt, .csv or .jsonl"),
        ("p.csv", "", "holds no prompt"),
        ("p.csv", "prompt\n", "holds no prompt"),
        ("p.csv", "text;seed\na;1\n", ":1: no column 'prompt'"),
        ("p.csv", "prompt,sede\na,1\n", "did you mean 'seed'"),
        ("p.csv", "prompt,cfg-scale,cfg_scale\na,1,1\n", "named twice"),
        ("p.csv", "prompt\na\nb,c\n", ":3: 2 cells, but 1"),
        ("p.csv", "seed,prompt\n1\n", ":2: the prompt is missing"),
        ("p.csv", 'prompt\na\n"open\n' + "x\n" * 99, "p.csv:3: bad CSV"),
        ("p.csv", 'prompt\n"' + "line\n" * 40_000, "p.csv:2: bad CSV"),
        ("p.jsonl", "{}\n", ":1: the prompt is missing"),
        ("p.jsonl", '{"prompt": " "}', "empty"),
        ("p.jsonl", '{"prompt": 3}', "missing or empty"),
        ("p.jsonl", '"ok"\n{"prompt": "a"', ":2: bad JSON"),
        ("p.jsonl", "[1]", "neither an object nor a string"),
        ("p.jsonl", "[" * 100_000, "bad JSON"),
        ("p.jsonl", '{"prompt": "a", "seed": NaN}', "bad JSON"),
        ("p.jsonl", '{"prompt": "a", "seed": ' + "9" * 5000 + "}", "bad JSON"),
        ("p.jsonl", '{"prompt": "a", "seeds": 1}', "no option 'seeds'; did you mean 'seed'"),
        ("p.jsonl", '{"prompt": "a", "seed": [1]}', "needs one value"),
        ("p.jsonl", '{"prompt": "a", "cfg-scale": 1, "cfg_scale": 2}', "given twice"),
        ("p.jsonl", '"\\ud800"', "not Unicode text"),
    ],
)
def test_refusals(tmp_path, name, content, word):
    path = write(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        read_prompts(path, options=OPTIONS)
    assert word in str(caught.value) and str(path) in str(caught.value)


def test_unreadable(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_prompts(tmp_path / "no.txt")
    with pytest.raises(InputError, match="directory"):
        read_prompts(tmp_path)


def test_a_large_file_is_refused_while_streaming(monkeypatch):
    class Endless(io.RawIOBase):
        served = 0

        def readline(self, size=-1):
            self.served += 1
            return b"# comment\n"

    monkeypatch.setattr(prompts, "FILE_LIMIT", 1 << 20)
    stream = Endless()
    with pytest.raises(InputError, match="over 1 MB; split"):
        read_prompts("-", stream)
    assert stream.served < 110_000


LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(st.lists(LINE.filter(str.strip), min_size=1, max_size=5))
def test_what_csv_and_json_write_comes_back(texts):
    lines = "\n".join(json.dumps({"prompt": text}) for text in texts)
    read = read_prompts("-", io.BytesIO(lines.encode()), format="jsonl")
    assert [item.prompt for item in read] == texts
    # A bare carriage return is a line end to the csv module, and is not promised to survive.
    texts = [text.replace("\r", "") or "x" for text in texts]
    texts = [text if text.strip() else "x" for text in texts]
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_ALL).writerows([["prompt"], *([t] for t in texts)])
    read = read_prompts("-", io.BytesIO(table.getvalue().encode()), format="csv")
    assert [item.prompt for item in read] == texts


@given(st.binary(max_size=200), st.sampled_from(["txt", "csv", "jsonl"]))
def test_any_bytes_raise_nothing_but_our_errors(content, format):
    try:
        assert read_prompts("-", io.BytesIO(content), format=format)
    except DitError as error:
        assert str(error).startswith("-")
