"""``dit edit``, as a user starts it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from dit_tools.core.errors import DitError
from dit_tools.media import image
from dit_tools.media.metadata import read_record
from dit_tools.models.loading.load import load
from dit_tools.tasks.edit import task
from tests.support.program import dit

RANDOM = np.random.default_rng(0)
FAST = {"steps": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photograph: 16 bits, 90 x 130, EXIF and a profile, and a mask for it."""
    from PIL import Image, ImageCms

    folder = tmp_path_factory.mktemp("edit")
    exif = Image.Exif()
    exif[271] = "Maker"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = RANDOM.random((90, 130, 3), dtype=np.float32)
    content = image.encode(pixels, "png", bits=16, icc=icc, exif=exif.tobytes())
    (folder / "photo.png").write_bytes(content)
    mask = np.zeros((90, 130, 1), np.float32)
    mask[20:60, 30:80] = 1
    (folder / "mask.png").write_bytes(image.encode(mask, "png"))
    return folder


@functools.cache
def model():
    """The built-in model, loaded once."""
    return load("emoji", backend="onnx")


def run(place: Path, **request) -> list[dict]:
    """The events of a run in this process."""
    events: list[dict] = []
    values = {"values": FAST, "overwrite": True} | request
    values["picture"] = str(place / values.get("picture", "photo.png"))
    task.plan_edit(task.Request(**values), events.append, lambda *_: model()).start()
    return events


def test_outside_the_mask_every_bit_is_kept_and_so_is_what_belongs_to_a_photograph(place):
    done = dit("edit", "photo.png", "a cat", "--mask", "mask.png", "-o", "out.png", "--steps", "2", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    item = json.loads(done.stdout.splitlines()[1])
    before, after = (image.read(place / name) for name in ("photo.png", "out.png"))
    mask = image.read(place / "mask.png").pixels[:, :, 0] > 0.5
    assert after.bits == 16 and after.icc == before.icc and after.exif == before.exif
    assert np.array_equal(after.pixels[~mask], before.pixels[~mask])
    assert (after.pixels[mask] != before.pixels[mask]).any()
    assert item["psnr_outside"] == 200 and item["psnr_inside"] < 40
    assert item["ssim_outside"] == 1 and item["calls"] == 2 and item["method"] == "inpaint"
    record = read_record(place / "out.png")
    assert record and record["command"] == "edit" and record["source"] == "photo.png"


def test_strength_0_and_an_empty_mask_return_the_picture(place):
    empty = np.zeros((90, 130, 1), np.float32)
    (place / "empty.png").write_bytes(image.encode(empty, "png"))
    before = image.read(place / "photo.png").pixels
    for request in ({"strength": 0.0}, {"mask": str(place / "empty.png")}):
        out = str(place / "same.png")
        item = run(place, prompt="a cat", output=out, **request)[1]
        assert item["unchanged"] and np.array_equal(image.read(out).pixels, before)


def test_a_seed_decides_and_several_make_several(place):
    out = str(place / "seeds") + "/"
    events = run(place, prompt="a cat", output=out, values=FAST | {"seed": "1,2"})
    paths = [event["path"] for event in events if event["type"] == "item"]
    assert [Path(path).name for path in paths] == ["photo-edit-1.png", "photo-edit-2.png"]
    one, two = (image.read(path).pixels for path in paths)
    assert not np.array_equal(one, two)
    again = run(place, prompt="a cat", output=str(place / "s.png"), values=FAST | {"seed": "1"})
    assert np.array_equal(image.read(again[1]["path"]).pixels, one)


def test_instructions_over_a_folder(place):
    lines = [
        {"picture": "photo.png", "prompt": "a cat", "mask": "mask.png"},
        {"picture": "photo.png", "prompt": "a dog", "mask": "5,5,40,40", "strength": 0.5},
        {"picture": "gone.png", "prompt": "a dog"},
    ]
    file = place / "todo.jsonl"
    file.write_text("\n".join(map(json.dumps, lines[:2])))
    out = str(place / "many") + "/"
    items = [e for e in run(place, picture=".", instructions=str(file), output=out) if e["type"] == "item"]
    assert [item["method"] for item in items] == ["inpaint", "inpaint:strength=0.5"]
    assert all(item["psnr_outside"] == 200 for item in items)
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DitError, match=r"todo.jsonl:3: .*gone.png: no such file"):
        run(place, picture=".", instructions=str(file), output=out)


@pytest.mark.parametrize("shape", [(1, 1, 3), (40, 40, 1), (33, 70, 4), (300, 3, 3)])
def test_odd_pictures(place, shape):
    (place / "odd.png").write_bytes(image.encode(RANDOM.random(shape, dtype=np.float32), "png"))
    for request in ({}, {"mask": "0,0,1,1"}):
        out = str(place / "odd-out.png")
        events = run(place, picture="odd.png", prompt="a cat", output=out, **request)
        assert events[1]["type"] == "item", events[1]
        assert image.read(out).pixels.shape == (*shape[:2], 4 if shape[2] == 4 else 3)


def test_animations_cmyk_and_large_pictures(place):
    from PIL import Image

    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(place / "move.gif", save_all=True, append_images=frames[1:])
    Image.new("CMYK", (50, 40), (0, 200, 200, 0)).save(place / "print.jpg")
    Image.new("RGB", (5000, 4000), "green").save(place / "large.jpg")
    notes = {"move.gif": "first frame", "print.jpg": "CMYK converted", "large.jpg": ""}
    for name, note in notes.items():
        (event,) = [
            e
            for e in run(place, picture=name, prompt="a cat", mask="10,10,20,20", output=str(place / "odd") + "/")
            if e["type"] in ("item", "error")
        ]
        assert event["type"] == "item", event
        assert note in (event.get("note") or "")
    assert (place / "odd/move-edit.png").exists() and (place / "odd/large-edit.jpg").exists()


@pytest.mark.parametrize(
    "request_, message",
    [
        ({}, "no prompt"),
        ({"prompt": "x", "picture": "none.png"}, "no such file or folder"),
        ({"prompt": "x", "method": "flowedti"}, "did you mean 'flowedit'?"),
        ({"prompt": "x", "method": "inpaint"}, "needs --mask"),
        ({"prompt": "x", "strength": 2.0}, "out of range; give 0..1"),
        ({"prompt": "x", "strength": 0.5, "method": "flowchef"}, "has none"),
        ({"prompt": "x", "strength": 0.5, "method": "img2img:strength=0.2"}, "gives it too"),
        ({"prompt": "x", "output": "photo.png"}, "is the image itself"),
        ({"prompt": "x", "instructions": "todo.csv"}, "exclude each other"),
    ],
)
def test_bad_requests(place, monkeypatch, request_, message):
    monkeypatch.chdir(place)
    values = {"picture": "photo.png", "overwrite": True} | request_
    with pytest.raises(DitError) as caught:
        task.plan_edit(task.Request(**values), print)
    assert message in str(caught.value)


def test_a_mask_of_another_shape_is_one_line(place):
    mask = np.ones((10, 90, 1), np.float32)
    (place / "thin.png").write_bytes(image.encode(mask, "png"))
    done = dit("edit", "photo.png", "x", "--mask", "thin.png", "-o", "no.png", cwd=place)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert "a mask of 90x10 for an image of 130x90" in done.stderr
    assert not (place / "no.png").exists()
