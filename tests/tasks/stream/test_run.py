"""``--stream`` as a run: frames in, images out, in order, with what is refused."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest

from dit_tools.core.errors import UsageError
from dit_tools.jobs.manifest import MANIFEST_NAME
from dit_tools.media import image, metadata
from dit_tools.tasks.stream.run import Request, plan_stream
from tests.support.numpy_model import Counting

SIZE = 16


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def frame(level, shape=(SIZE, SIZE)):
    rows = np.linspace(0, 0.3, shape[0], dtype=np.float32)[:, None, None]
    return np.broadcast_to(rows + np.array([level, 0.5, 1 - level - 0.3], np.float32), (*shape, 3)).clip(0, 1)


def write(levels, folder="in"):
    Path(folder).mkdir()
    for i, level in enumerate(levels):
        Path(folder, f"{i:03d}.png").write_bytes(image.encode(frame(level), "png"))


class Gentle:
    """A network that moves a frame a little towards the prompt's colour."""

    offers = frozenset()

    def __init__(self):
        self.calls = []

    def __call__(self, x, t, colour):
        self.calls.append(x.shape)
        return 0.5 * (x - colour[:, :, None, None])

    def blocks(self):
        return []


class Loads(Counting):
    def load(self, reference, wishes):
        made = super().load(reference, wishes)
        made.network = Gentle()
        return made


def go(source="in", prompts=("cat",), **options):
    fields = {k: options.pop(k) for k in list(options) if k in Request.__dataclass_fields__}
    stand_in, events = Loads(), []
    values = {"steps": 4, "model": "emoji", **options}
    run = plan_stream(Request(source, prompts, values, **fields), events.append, stand_in.load)
    return run.start(), events, run, stand_in


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir() if path.name != MANIFEST_NAME)


def test_every_frame_gets_a_picture_in_order():
    write([0.1, 0.6, 0.3])
    outcome, events, run, stand_in = go(output="out/", strength=0.5, similarity=1.0)
    assert outcome.exit_code == 0 and names("out") == ["00001.png", "00002.png", "00003.png"]
    made = [image.read(f"out/{name}").pixels for name in names("out")]
    assert made[0].shape == (SIZE, SIZE, 3)
    for other in (1, 2):
        assert not np.array_equal(made[0], made[other])
    calls = [shape[0] for shape in stand_in.models[0].network.calls]
    assert calls == [2, 4, 4, 2]  # two levels, two branches: 1, 2, 2, 1 frames
    assert (run.task.frames, run.task.skipped_frames, run.task.calls) == (3, 0, 4)
    assert [e["type"] for e in events] == ["start", "item", "item", "item", "done"]
    record = metadata.read_record("out/00002.png")
    assert (record["command"], record["source"], record["strength"]) == ("stream", "in", 0.5)
    assert record["solver"] == "euler"


def test_a_frame_is_the_same_whatever_comes_before_and_after():
    write([0.1, 0.6, 0.3])
    write([0.6], "alone")
    go(output="out/", similarity=1.0)
    go("alone", output="one/", similarity=1.0)
    pair = [image.read(name).pixels for name in ("out/00002.png", "one/00001.png")]
    assert abs(pair[0] - pair[1]).max() <= 1 / 255 + 1e-6


def test_duplicates_cost_nothing_and_repeat_the_picture():
    write([0.1, 0.1, 0.1, 0.6, 0.6])
    outcome, _, run, _ = go(output="out/", strength=0.5, similarity=0.9999)
    assert outcome.exit_code == 0 and len(names("out")) == 5
    assert (run.task.frames, run.task.skipped_frames, run.task.calls) == (5, 3, 3)
    made = [image.read(f"out/{name}").pixels for name in names("out")]
    assert np.array_equal(made[0], made[2]) and np.array_equal(made[3], made[4])
    assert not np.array_equal(made[2], made[3])


def test_a_second_run_makes_no_second_pictures_and_what_is_missing():
    write([0.1, 0.6, 0.3])
    go(output="out/")
    before = {name: Path("out", name).read_bytes() for name in names("out")}
    Path("out/00002.png").unlink()
    outcome, events, *_ = go(output="out/")
    assert outcome.skipped == 2 and outcome.written == ["out/00002.png"] and names("out") == sorted(before)
    assert [e["type"] for e in events] == ["start", "skip", "item", "skip", "done"]
    assert np.array_equal(image.read("out/00002.png").pixels, image.read(before["00002.png"]).pixels)
    Path("in/001.png").write_bytes(image.encode(frame(0.9), "png"))
    assert go(output="out/")[0].written == [f"out/0000{i}-2.png" for i in (1, 2, 3)]


def test_more_strength_goes_farther_from_the_frames():
    write([0.4])
    far = []
    for strength in (0.25, 1.0):
        go(output=f"{strength}/", strength=strength)
        far.append(abs(image.read(f"{strength}/00001.png").pixels - frame(0.4)).mean())
    assert far[0] < far[1]


def test_frames_of_any_size_are_fitted():
    Path("in").mkdir()
    Path("in/a.png").write_bytes(image.encode(frame(0.2, (33, 60)), "png"))
    go(output="out/")
    assert image.read("out/00001.png").pixels.shape == (SIZE, SIZE, 3)


def test_a_pipe_in_and_a_pipe_out(monkeypatch):
    class Pipe:
        buffer = io.BytesIO(b"".join(image.encode(frame(v), "png") for v in (0.1, 0.6)))

    class Out:
        buffer = io.BytesIO()

    monkeypatch.setattr("sys.stdin", Pipe)
    monkeypatch.setattr("sys.stdout", Out)
    outcome, *_ = go("-", output="-")
    assert outcome.exit_code == 0 and outcome.written == ["-", "-"]
    from dit_tools.media.frames import read_pipe

    assert len(list(read_pipe(io.BytesIO(Out.buffer.getvalue())))) == 2


def test_a_film_in_and_a_film_out():
    from dit_tools.media import animation, frames

    levels = (0.1, 0.4, 0.7)
    animation.write_animation("in.mp4", [frame(v, (32, 32)) for v in levels], 10, hold=0)
    outcome, *_ = go("in.mp4", output="out.mp4", similarity=1.0, fps=10.0)
    assert outcome.exit_code == 0 and outcome.written == ["out.mp4"]
    assert len(list(frames.read_video(Path("out.mp4")))) == 3
    assert not [name for name in names(".") if name.startswith(".")]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompts": ()}, "--stream: takes one prompt"),
        ({"prompts": ("a", "b")}, "--stream: takes one prompt"),
        ({"seed": "1,2"}, "--stream: every frame has the same noise; give one seed"),
        ({"strength": 0.0}, "--strength 0: out of range"),
        ({"similarity": 1.5}, "--similarity 1.5: out of range"),
        ({"cache": "output"}, "--cache output: it remembers one image from call to call"),
        ({"solver": "heun"}, "--solver heun: has no place in --stream; use euler"),
        ({"output": "one.png"}, "-o one.png: one file for many frames; give a folder/"),
        ({"output": "a.gif", "fps": 99.0}, "--fps 99: out of range; .gif takes up to 50"),
        ({"output": "out/", "format": "jpeg", "transparent": True}, "jpeg holds no transparency"),
    ],
)
def test_what_has_no_place_is_refused_before_a_model_is_loaded(options, message):
    write([0.1])
    with pytest.raises(UsageError, match=re.escape(message)):
        go(**options)


def test_no_frames_are_told():
    outcome, *_ = go("gone", output="out/")
    assert outcome.exit_code == 4
    assert "gone: no such file or folder" in str(outcome.failed[0][1])
