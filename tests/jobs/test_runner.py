"""Runs of a small task: resuming, failures, names, executors, stopping, and many runs at once."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dit_tools.core.errors import InputError, ModelError, UsageError
from dit_tools.jobs import runner as module
from dit_tools.jobs.inputs import several
from dit_tools.jobs.items import Item, Result, Task
from dit_tools.jobs.manifest import MANIFEST_NAME, Manifest
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.runner import Runner
from tests.support.program import environment


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Upper(Task):
    """Text files in capitals; one that holds "bad" fails, and so does a batch with it."""

    command = "upper"
    unsent = ("model",)

    def __init__(self, size=1):
        self.size, self.made, self.seen, self.model = size, [], [], object()

    def batches(self, items):
        return [items[i : i + self.size] for i in range(0, len(items), self.size)]

    def make(self, items, report):
        texts = [Path(item.source).read_text() for item in items]
        if "bad" in texts:
            raise ModelError("it is bad", "write something else")
        report(0.5)
        self.made += [item.source for item in items]
        return [Result(text.upper().encode(), {"length": len(text)}) for text in texts]

    def skipped(self, item, path):
        self.seen.append((item.source, str(path)))


def write(**texts):
    for name, text in texts.items():
        Path(f"{name}.txt").write_text(text)
    return [f"{name}.txt" for name in texts]


def items(sources, **identity):
    return [
        Item(
            index,
            source,
            suffix=".out",
            fields={"stem": Path(source).stem, "index": index + 1},
            identity={"command": "upper", "source": source, **identity},
            inputs=(source,),
            told={"source": source},
        )
        for index, source in enumerate(sources)
    ]


def go(sources, output="out/", task=None, listen=None, **options):
    """Run; gives the outcome, the events and the task."""
    task, events = task or Upper(), []
    outputs = Outputs(output, "{stem}", **options)
    run = Runner(items(sources), task, outputs, listen or events.append)
    return run.start(), events, task


def contents(folder="out"):
    return {path.name: path.read_text() for path in Path(folder).iterdir() if path.name != MANIFEST_NAME}


def test_a_run_makes_each_item_once_and_a_second_one_nothing():
    sources = write(a="one", b="two")
    outcome, events, _ = go(sources)
    assert contents() == {"a.out": "ONE", "b.out": "TWO"} and outcome.exit_code == 0
    assert [(e["type"], e.get("path"), e.get("source"), e.get("length")) for e in events[1:-1]] == [
        ("item", "out/a.out", "a.txt", 3),
        ("item", "out/b.out", "b.txt", 3),
    ]
    again, events, task = go(sources)
    assert (again.skipped, task.made, again.written) == (2, [], [])
    assert task.seen == [("a.txt", "out/a.out"), ("b.txt", "out/b.out")]
    assert [e.get("reason") for e in events] == [None, "done before", "done before", None]


def test_a_changed_input_or_another_request_is_made_again_and_keeps_the_old_file():
    sources = write(a="one")
    go(sources)
    write(a="two")
    assert go(sources)[0].written == ["out/a-2.out"]
    assert contents() == {"a.out": "ONE", "a-2.out": "TWO"}
    outputs = Outputs("out/", "{stem}")
    assert Runner(items(sources, strength=2), Upper(), outputs, print).start().written == ["out/a-3.out"]


def test_inputs_that_agree_in_everything_are_each_made():
    Path("x").mkdir()
    Path("y").mkdir()
    for folder in "xy":
        Path(folder, "a.txt").write_text("same")
    both = [
        Item(i, f"{folder}/a.txt", None, ".out", {"stem": "a"}, {"source": "a.txt"}, (f"{folder}/a.txt",))
        for i, folder in enumerate("xy")
    ]
    first = Runner(both, Upper(), Outputs("out/", "{stem}"), print).start()
    assert first.written == ["out/a.out", "out/a-2.out"]
    assert Runner(both, Upper(), Outputs("out/", "{stem}"), print).start().skipped == 2


def test_without_o_a_run_over_a_folder_goes_on_in_the_current_one():
    sources = write(a="one", b="two")
    go(sources, None, resume=True)
    assert go(sources, None, resume=True)[0].skipped == 2
    assert sorted(contents(".")) == ["a.out", "a.txt", "b.out", "b.txt"]
    Path("in").mkdir()
    assert several(["in"], [Path("in/a")]) and several(["a", "b"], [Path("a"), Path("b")])
    assert not several(["a.txt"], [Path("a.txt")])


def test_one_failure_is_told_and_the_others_are_made():
    sources = write(a="one", b="bad", c="three")
    outcome, events, task = go(sources, task=Upper(size=3))
    assert contents() == {"a.out": "ONE", "c.out": "THREE"} and outcome.exit_code == 3
    (failed,) = [e for e in events if e["type"] == "error"]
    assert (failed["source"], failed["path"], failed["message"]) == ("b.txt", "out/b.out", "it is bad")
    assert list(Manifest("out").failed().values()) == ["it is bad; write something else"]
    write(b="good")
    assert go(sources)[0].written == ["out/b.out"]


def test_an_input_that_is_gone_fails_alone():
    sources = write(a="one", b="two")
    Path("b.txt").unlink()

    class Reads(Upper):
        def make(self, items, report):
            try:
                return super().make(items, report)
            except OSError as error:
                raise InputError(f"{items[0].source}: cannot be read") from error

    outcome, _, _ = go(sources, task=Reads())
    assert outcome.exit_code == 3 and contents() == {"a.out": "ONE"}


def test_a_name_that_is_too_long_fails_its_item_only():
    long = "n" * 248
    sources = write(a="one", **{long: "two"}, c="three")
    run = Runner(items(sources), Upper(), Outputs("out/", "{stem}-{stem}"), (events := []).append)
    outcome = run.start()
    assert sorted(contents()) == ["a-a.out", "c-c.out"] and outcome.exit_code == 3
    assert [e["source"] for e in events if e["type"] == "error"] == [f"{long}.txt"]
    assert "over 255 bytes" in str(outcome.failed[0][1])
    with pytest.raises(InputError, match="over 255 bytes"):  # nothing else to do: told at once
        Runner(items([f"{long}.txt"]), Upper(), Outputs("out/", "{stem}-{stem}"), print)


def test_existing_files_are_numbered_kept_or_replaced():
    sources = write(a="one")
    Path("a.out").write_text("mine")
    assert go(sources, "a.out")[0].written == ["a-2.out"]
    outcome, events, task = go(sources, "a.out", skip_existing=True)
    assert (outcome.skipped, task.made, events[1]["reason"]) == (1, [], "it exists")
    assert Path("a.out").read_text() == "mine"
    assert go(sources, "a.out", overwrite=True)[0].written == ["a.out"]
    assert Path("a.out").read_text() == "ONE"


@pytest.mark.parametrize("skip", [False, True])
def test_a_file_that_appears_meanwhile_is_never_replaced(skip):
    sources = write(a="one", b="two")

    class Slow(Upper):
        def make(self, items, report):
            made = super().make(items, report)
            if items[0].source == "a.txt":
                Path("out").mkdir(exist_ok=True)
                Path("out/a.out").write_text("theirs")
            return made

    outcome, events, _ = go(sources, task=Slow(), skip_existing=skip)
    assert Path("out/a.out").read_text() == "theirs"
    if skip:
        assert (outcome.skipped, outcome.written) == (1, ["out/b.out"])
    else:
        assert outcome.written == ["out/a-2.out", "out/b.out"]
        assert go(sources)[0].skipped == 2


def test_an_output_is_never_its_own_input():
    Path("a.out").write_text("one")
    run = [Item(0, "a.out", suffix=".out", fields={"stem": "a"}, inputs=("a.out",))]
    with pytest.raises(UsageError, match=r"-o a\.out: is the image itself"):
        Runner(run, Upper(), Outputs(None, "{stem}", overwrite=True), print)
    assert Path("a.out").read_text() == "one"


def test_stdout_takes_every_result_and_no_manifest_is_kept():
    sources, stream = write(a="one", b="two"), io.BytesIO()
    outcome, _, _ = go(sources, "-", stdout=stream)
    assert stream.getvalue() == b"ONETWO" and outcome.written == ["-", "-"]
    assert sorted(os.listdir()) == ["a.txt", "b.txt"]
    with pytest.raises(UsageError, match="one file for 2"):
        Outputs("x.out").single(2)


def test_a_full_disk_ends_the_run_with_one_failure(monkeypatch):
    from dit_tools.jobs.atomic import PartFile

    def full(part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PartFile, "flush", full)
    outcome, _, task = go(write(a="one", b="two", c="three"))
    assert task.made == ["a.txt"] and len(outcome.failed) == 1 and outcome.exit_code == 4
    assert list(contents()) == []


def test_ctrl_c_finishes_the_item():
    def listen(event):
        if event["type"] == "item":
            signal.raise_signal(signal.SIGINT)

    sources = write(a="one", b="two")
    outcome, _, task = go(sources, listen=listen)
    assert (outcome.exit_code, task.made) == (130, ["a.txt"])
    assert go(sources)[0].written == ["out/b.out"]


def test_what_else_a_task_may_do():
    class More(Upper):
        def finished(self, item, path, result):
            return [f"{path}.thumb"]

        def close(self):
            raise InputError("sheet.png: cannot be written")

        def verdict(self):
            return 1

        def summary(self):
            return "done"

    outcome, events, _ = go(write(a="one"), task=More())
    assert outcome.files == ["out/a.out.thumb"] and outcome.summary == "done"
    assert (outcome.failed[0][0], events[-1]["exit"]) == ("sheet.png", 3)


def test_results_that_write_themselves_or_nothing():
    class Writes(Upper):
        def make(self, items, report):
            return [Result(lambda path: path.write_text("long")), Result(None, {"psnr": 3.0})]

        def batches(self, items):
            return [items]

    outcome, events, _ = go(write(a="one", b="two"), task=Writes())
    assert contents() == {"a.out": "long"} and outcome.written == ["out/a.out", "-"]
    assert events[2]["path"] is None and events[2]["psnr"] == 3.0
    assert Manifest("out").done(next(iter(json.loads(Path("out", MANIFEST_NAME).read_text())["key"].split())))


def test_a_flow_has_items_that_nobody_counted():
    class Frames(Upper):
        input_name = "pipe"

        def flow(self):
            for index in range(5):
                if self.stopping():
                    return
                fields = {"index": index + 1}
                yield Item(index, suffix=".out", fields=fields, identity={"frame": index}), Result(b"%d" % index)
            raise InputError("the pipe broke")

    for _ in range(2):
        outputs = Outputs("out/", "{index:02d}")
        outcome = Runner([], Frames(), outputs, lambda event: None).start()
        assert outcome.failed[0][0] == "pipe" and outcome.exit_code == 3
        assert sorted(contents()) == [f"0{i}.out" for i in range(1, 6)]
    assert outcome.skipped == 5


def test_another_executor_gets_pickles_and_gives_results_in_any_order():
    class Elsewhere:
        """Batches cross a border as bytes, and come back last first."""

        def map(self, task, batches, watch):
            for batch in reversed(list(batches)):
                there, sent = pickle.loads(pickle.dumps((task, batch)))
                assert there.model is None and task.model is not None
                yield batch, pickle.loads(pickle.dumps(there.make(sent, lambda share: None)))

    sources = write(a="one", b="two", c="three")
    outputs = Outputs("out/", "{stem}")
    outcome = Runner(items(sources), Upper(), outputs, lambda event: None, Elsewhere()).start()
    assert outcome.written == ["out/c.out", "out/b.out", "out/a.out"]
    assert go(sources)[0].skipped == 3


def test_four_runs_at_once_into_one_place_lose_nothing():
    code = textwrap.dedent(
        """
        import sys
        from dit_tools.jobs.items import Item, Result, Task
        from dit_tools.jobs.outputs import Outputs
        from dit_tools.jobs.runner import Runner

        class Same(Task):
            def make(self, items, report):
                return [Result(f"{sys.argv[1]}-{item.index}".encode()) for item in items]

        items = [Item(i, suffix=".out", identity={"run": sys.argv[1], "item": i}) for i in range(25)]
        run = Runner(items, Same(), Outputs("out/x.out" if sys.argv[2] == "file" else "out/", "x"), lambda event: None)
        print("ready", flush=True), sys.stdin.readline()
        outcome = run.start()
        print("\\n".join(outcome.written))
        """
    )
    Path("out").mkdir()
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment()}
    for kind in ("file", "folder"):
        before = set(contents())
        runs = [subprocess.Popen([sys.executable, "-c", code, f"{kind}{n}", kind], **pipe) for n in range(4)]
        for run in runs:
            assert run.stdout.readline() == "ready\n"
        told = [run.communicate("go\n", timeout=60)[0].split() for run in runs]
        made = {name: text for name, text in contents().items() if name not in before}
        assert len(made) == 100 and sorted(f"out/{name}" for name in made) == sorted(sum(told, []))
        assert set(made.values()) == {f"{kind}{n}-{i}" for n in range(4) for i in range(25)}


@pytest.mark.parametrize("moment", ["before the name", "after the name"])
def test_a_kill_around_the_name_makes_nothing_twice(moment):
    code = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from dit_tools.jobs.atomic import PartFile
        from tests.jobs.test_runner import go
        put = PartFile.put
        def killed(part, target):
            if {moment == "after the name"}: put(part, target)
            os.kill(os.getpid(), signal.SIGKILL)
        PartFile.put = killed
        go(["a.txt"])
        """
    )
    sources = write(a="one")
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(name.startswith(".dit-part-") for name in os.listdir("out"))
    outcome, _, _ = go(sources)
    assert contents() == {"a.out": "ONE"}
    assert outcome.skipped == (moment == "after the name")


def test_the_example_of_the_module_runs():
    """The task of the docstring, as it stands there."""
    import numpy as np

    from dit_tools.jobs import image_outputs, inputs
    from dit_tools.media import image

    names = {**globals(), "image": image, "suffix": image.suffix}
    names |= {"output_format": image_outputs.output_format, "expand": inputs.expand_inputs}
    exec(compile(textwrap.dedent(module.__doc__.split("::\n", 1)[1]), "example", "exec"), names)
    Path("in").mkdir()
    for level in (0.0, 0.25):
        Path(f"in/{level}.png").write_bytes(image.encode(np.full((8, 8, 3), level, np.float32), "png"))

    class Request:
        images, output, format, overwrite, skip_existing, quiet = ["in"], "out/", None, False, False, True

    outcome = names["assemble"](Request, lambda event: None).start()
    assert outcome.written == ["out/0.0-negative.png", "out/0.25-negative.png"]
    assert image.read("out/0.0-negative.png").pixels.min() == 1
