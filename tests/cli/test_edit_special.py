"""``dit edit`` with another image, with several seeds to choose from, and ``--protect``."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from dit_tools.core.errors import DitError
from dit_tools.media import image
from dit_tools.media.metadata import read_record
from dit_tools.models.loading.load import load
from dit_tools.tasks import protect
from dit_tools.tasks.edit import task

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two images: 70 x 90 colours, 40 x 40 with alpha."""
    folder = tmp_path_factory.mktemp("special")
    for name, shape in (("one.png", (70, 90, 3)), ("two.png", (40, 40, 4))):
        content = image.encode(RANDOM.random(shape, dtype=np.float32), "png")
        (folder / name).write_bytes(content)
    return folder


@functools.cache
def model():
    """The built-in model, loaded once."""
    return load("emoji", backend="onnx")


def run(place: Path, **request) -> dict:
    """The item's event, or the error's, of a run in this process."""
    events: list[dict] = []
    values = {"values": {"steps": 3}, "overwrite": True, "picture": str(place / "one.png")}
    values |= {"output": str(place / "out.png")} | request
    task.plan_edit(task.Request(**values), events.append, lambda *_: model()).start()
    return events[1]


def test_steering_says_which_seed_it_took_and_that_seed_makes_the_same_file(place):
    item = run(place, prompt="a cat", steer="elect:candidates=3", values={"steps": 5, "seed": "4"})
    assert item["type"] == "item", item
    steered = image.read(place / "out.png").pixels
    record = read_record(place / "out.png")
    assert record and record["steer"] == "elect:candidates=3"
    assert item["seed"] == record["seed"] and item["seed"] in (4, 5, 6)
    alone = run(place, prompt="a cat", values={"steps": 5, "seed": str(item["seed"])})
    assert np.array_equal(image.read(place / "out.png").pixels, steered)
    assert alone["calls"] < item["calls"] < 3 * alone["calls"]


def test_another_picture_comes_in(place):
    shares = []
    for share in (0.2, 0.8):
        item = run(place, method=f"interpolate:share={share}", references=[str(place / "two.png")])
        assert item["type"] == "item" and item["record"]["references"] == ["two.png"]
        shares.append(image.read(place / "out.png").pixels)
    assert shares[0].shape == (70, 90, 3) and abs(shares[0] - shares[1]).mean() > 1e-3


def test_detail_is_kept_where_the_edit_changes_little(place):
    rows, columns = np.mgrid[:70, :90]
    fine = (0.5 + 0.1 * ((rows + columns) % 2))[:, :, None].repeat(3, axis=2).astype(np.float32)
    (place / "fine.png").write_bytes(image.encode(fine, "png"))
    kept, lost = (
        run(
            place,
            picture=str(place / "fine.png"),
            prompt="a cat",
            source_prompt="a dog",
            method="eim:amount=0.02,draws=1",
            keep_detail=keep,
        )["psnr"]
        for keep in (True, False)
    )
    assert kept > lost + 3


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"prompt": "x", "references": ["two.png"]}, "takes no --reference, not 1"),
        ({"method": "interpolate"}, "takes 1 --reference, not 0"),
        ({"method": "interpolate", "references": ["gone.png"]}, "gone.png: no such file"),
        ({"method": "boundary"}, "no prompt"),
        ({"method": "diffeditor:right=3"}, "needs --mask"),
        ({"prompt": "x", "steer": "elekt"}, "did you mean 'elect'?"),
        ({"prompt": "x", "steer": "elect", "method": "sine"}, "cannot be stopped midway"),
    ],
)
def test_bad_requests(place, monkeypatch, request_, message):
    monkeypatch.chdir(place)
    with pytest.raises(DitError) as caught:
        task.plan_edit(task.Request(**{"picture": "one.png"} | request_), print)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"protect": "shield"}, "--protect: no method 'shield'"),
        ({"protect": "sds", "method": "sine"}, "--method: --protect sds makes no edit"),
        ({"protect": "sds", "mask_text": "cat"}, "--mask-text: --protect sds makes no edit"),
        ({"protect": "sds:levels=300"}, "out of range"),
        ({"protect": "sds", "values": {"seed": "1,2"}}, "an image is protected once"),
        ({"protect": "sds", "output": "one.png", "overwrite": True}, "is the image itself"),
    ],
)
def test_bad_requests_for_protection(place, monkeypatch, request_, message):
    monkeypatch.chdir(place)
    with pytest.raises(DitError) as caught:
        protect.plan_protection(task.Request(**{"picture": "one.png"} | request_), print)
    assert message in str(caught.value)


def test_protecting_a_file(place, monkeypatch):
    monkeypatch.chdir(place)
    events: list[dict] = []
    request = task.Request("two.png", protect="sds:iterations=2,levels=4,step=4")
    torch = load("emoji", backend="torch")
    protect.plan_protection(request, events.append, lambda *_: torch).start()
    item = events[1]
    assert item["path"] == "two-safe.png" and item["latent_shift"] > 0, item
    before, after = (image.read(place / name).pixels for name in ("two.png", "two-safe.png"))
    assert np.array_equal(before[:, :, 3], after[:, :, 3])
    assert 0 < abs(after - before).max() * 255 <= 4 + 1e-3
