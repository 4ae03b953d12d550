"""Images made again, on a model in plain numpy."""

import math
from pathlib import Path

import numpy as np
import pytest

from dit_tools.core.errors import InputError, ModelError
from dit_tools.media import image, metadata
from dit_tools.tasks.generate.request import Request, plan_generation
from dit_tools.tasks.replay import Replay, psnr, read_original
from tests.jobs.test_record import validator
from tests.support.numpy_model import Counting


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(name="a.png", **options):
    stand_in = Counting(alpha=True)
    run, _ = plan_generation(Request(["a"], options, output=name), lambda e: None, stand_in.find, stand_in.load)
    assert run.start().exit_code == 0
    return name


def replay(name, revision="r1", changes=None, **options):
    stand_in = Counting(alpha=True, revision=revision)
    events = []
    originals = [read_original(name, changes or {})]
    run = Replay(originals, find=stand_in.find, load=stand_in.load, **options)
    run.prepare()
    outcome = run.start(events.append)
    for event in events:
        validator("events").validate(event)
    return outcome, run, events


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.png", {"seed": 5}),
        ("a.png", {"transparent": True}),
        ("a.jpg", {"quality": 60}),
        ("a.webp", {"background": "#102030"}),
        ("a.tif", {"guidance": "none", "solver": "heun"}),
        ("a.png", {"cfg_scale": 0.5, "negative_prompt": "n", "size": "24x32", "steps": 5}),
    ],
)
def test_a_picture_is_made_again_identically(name, options):
    made(name, **options)
    outcome, run, events = replay(name, check=True)
    assert run.verdicts == [f"{name}: identical"] and run.differs == 0
    assert events[1]["identical"] is True and events[1]["path"] is None
    assert outcome.exit_code == 0 and len(list(Path().iterdir())) == 1


def test_it_is_written_beside_and_holds_the_same_record():
    made()
    outcome, _, _ = replay("a.png")
    assert outcome.written == ["a-replay.png"]
    first, second = (metadata.read_record(name) for name in ("a.png", "a-replay.png"))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert replay("a.png")[0].written == ["a-replay-2.png"]
    assert replay("a.png", output="b.webp")[0].written == ["b.webp"]


def test_a_changed_picture_is_found_out():
    made()
    picture = image.read("a.png").pixels.copy()
    picture[0, 0] += 0.02 * np.where(picture[0, 0] < 0.5, 1, -1)
    record = metadata.read_record("a.png")
    Path("a.png").write_bytes(image.encode(picture, "png", record=record))
    outcome, run, events = replay("a.png", check=True)
    assert run.differs == 1 and events[-1]["exit"] == 1 and not events[-1]["ok"]
    assert events[1]["psnr"] > 40 and "PSNR" in run.verdicts[0]
    assert replay("a.png", check=True, min_psnr=40)[1].differs == 0
    Path("a.png").write_bytes(image.encode(picture[:8], "png", record=record))
    assert "another size" in replay("a.png", check=True, min_psnr=40)[1].verdicts[0]


def test_another_revision_is_refused_unless_forced():
    made()
    with pytest.raises(ModelError, match="made by revision r1 of emoji, here is r2"):
        replay("a.png", revision="r2")
    outcome, run, events = replay("a.png", revision="r2", force=True, check=True)
    assert outcome.exit_code == 0 and "model_revision r1 -> r2" in events[1]["drift"]


def test_options_replace_what_the_record_says():
    made()
    assert read_original("a.png", {"model": "other"}).job.settings.model == "other"
    assert read_original("a.png", {}).job.settings.device == "cpu"


@pytest.mark.parametrize(
    "record, message",
    [
        (None, "holds no 'dit' record"),
        ({"version": 1}, "no prompt and seed"),
        ({"version": 1, "command": "edit"}, "made by dit edit"),
        ({"version": 1, "prompt": "a", "seed": "1"}, "no prompt and seed"),
    ],
)
def test_pictures_that_cannot_be_repeated(record, message):
    Path("a.png").write_bytes(image.encode(np.zeros((8, 8, 3), np.float32), "png", record=record))
    with pytest.raises(InputError, match=f"a.png: .*{message}"):
        read_original("a.png", {})


def test_psnr_by_hand():
    one = np.zeros((8, 8, 3), np.float32)
    Path("a.png").write_bytes(image.encode(one, "png"))
    other = one.copy()
    other[:4] = 51 / 255  # 0.2 on half of the values: a mean square of 0.02
    assert psnr("a.png", image.encode(one, "png")) == math.inf
    assert psnr("a.png", image.encode(other, "png")) == pytest.approx(-10 * math.log10(0.02))
    assert psnr("a.png", image.encode(one[:4], "png")) is None
