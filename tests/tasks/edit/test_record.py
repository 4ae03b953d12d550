"""Records of edited images and of latent files keep to the schema that is written down."""

from __future__ import annotations

import functools
import json

import jsonschema
import numpy as np
import pytest

from dit_tools.media import image
from dit_tools.media.latent_file import unpack_latent
from dit_tools.media.metadata import read_record
from dit_tools.models.loading.load import load
from dit_tools.tasks import from_latent, invert, protect
from dit_tools.tasks.edit import task
from tests.jobs.test_record import validator

FAST = {"steps": 2}


@functools.cache
def model(name="emoji"):
    return load(name, backend="onnx")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an image, a mask for it, and its latents."""
    folder = tmp_path_factory.mktemp("records")
    pixels = np.random.default_rng(0).random((40, 40, 3), dtype=np.float32)
    (folder / "one.png").write_bytes(image.encode(pixels, "png"))
    mask = np.zeros((40, 40, 1), np.float32)
    mask[10:30, 10:30] = 1
    (folder / "mask.png").write_bytes(image.encode(mask, "png"))
    asked = invert.Request([str(folder / "one.png")], "noise", FAST, output=str(folder / "one.latent"))
    invert.plan_inversion(asked, lambda event: None, lambda *_: model()).start()
    return folder


def keep_to_the_schema(events):
    """Every event as it is printed is one of ``events.schema.json``."""
    assert [event["type"] for event in events][::2] == ["start", "done"]
    for event in events:
        validator("events").validate(json.loads(json.dumps(event)))


def edited(place, **request):
    """The record in the file of an edit."""
    values = {"picture": str(place / "one.png"), "prompt": "a cat", "values": FAST}
    values |= {"output": str(place / "out.png"), "overwrite": True} | request
    events: list[dict] = []
    task.plan_edit(task.Request(**values), events.append, lambda name, _: model(name)).start()
    assert events[1]["type"] == "item", events[1]
    keep_to_the_schema(events)
    record = read_record(place / "out.png")
    assert record == json.loads(json.dumps(events[1]["record"]))
    return record


EDITS = [
    {},
    {"mask": "mask.png", "feather": 2, "crop": False},
    {"mask": "5,5,20,20", "method": "inpaint:resample=2"},
    {"outpaint": "8,0,0,0"},
    {"method": "inversion", "inversion": "bdia", "source_prompt": "noise"},
    {"method": "text-injection", "inversion": "ddim", "keep_detail": False},
    {"method": "inversion", "source_model": "emoji-small"},
    {"inversion": "one.latent", "values": {}},
    {"method": "interpolate", "references": ["one.png"]},
    {"steer": "elect:candidates=2", "values": FAST | {"cfg_scale": 2.0, "negative_prompt": "n"}},
]


@pytest.mark.parametrize("request_", EDITS, ids=lambda r: ", ".join(map(str, r)) or "plain")
def test_records_of_edits(place, request_):
    files = {"one.png", "mask.png", "one.latent"}
    request = {k: str(place / v) if isinstance(v, str) and v in files else v for k, v in request_.items()}
    if "references" in request:
        request["references"] = [str(place / name) for name in request["references"]]
    record = edited(place, **request)
    validator("record").validate(record)
    assert record["command"] == "edit" and str(place) not in json.dumps(record)
    if record["method"].startswith(("inversion", "text-injection")):
        assert record["inversion"]
    for name in ("mask", "outpaint", "feather", "steer", "source_model"):
        assert record.get(name) == request_.get(name), name
    assert record.get("no_keep_detail") == (True if "keep_detail" in request_ else None)
    assert record.get("no_crop") == (True if request_.get("crop") is False else None)


def test_the_record_of_a_latent_file_and_of_a_picture_from_it(place):
    found = dict(unpack_latent(place / "one.latent").record)
    validator("record").validate(found)
    asked = from_latent.Request(str(place / "one.latent"), output=str(place / "again.png"))
    from_latent.plan_from_latent(asked, lambda event: None, lambda *_: model()).start()
    again = read_record(place / "again.png")
    validator("record").validate(again)
    assert again["command"] == "generate --from-latent" and again["source"] == "one.png"


def test_what_one_command_writes_is_refused_of_another(place):
    record, latent = edited(place), dict(unpack_latent(place / "one.latent").record)
    for wrong in (
        record | {"command": "generate"},
        record | {"tuned": {"min_psnr": 30, "runs": 1}},
        record | {"else": 1},
        {k: v for k, v in record.items() if k != "method"},
        latent | {"command": "edit"},
        latent | {"times": [2.0, 0.0]},
        latent | {"mask": "a.png"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validator("record").validate(wrong)


def test_events_of_latent_files_and_of_what_comes_back_keep_to_the_schema(place):
    events: list[dict] = []
    asked = invert.Request([str(place / "one.png")], "noise", FAST, overwrite=True, output=str(place / "again.latent"))
    invert.plan_inversion(asked, events.append, lambda *_: model()).start()
    assert events[1]["calls_invert"] > 0
    keep_to_the_schema(events)
    events.clear()
    back = from_latent.Request(str(place / "one.latent"), output=str(place / "b.png"))
    from_latent.plan_from_latent(back, events.append, lambda *_: model()).start()
    keep_to_the_schema(events)


def test_events_of_a_picture_that_fails_and_of_one_that_is_protected_keep_to_the_schema(place):
    (place / "bad.png").write_bytes(b"no image")
    events: list[dict] = []
    asked = task.Request(str(place / "bad.png"), "a cat", values=FAST)
    task.plan_edit(asked, events.append, lambda name, _: model(name)).start()
    assert events[1]["type"] == "error" and events[1]["source"]
    keep_to_the_schema(events)
    events.clear()
    safe = task.Request(str(place / "one.png"), None, protect="sds:levels=0", values={}, output=str(place / "safe.png"))
    protect.plan_protection(safe, events.append, lambda *_: load("emoji", backend="torch")).start()
    assert events[1]["latent_shift"] == 0
    keep_to_the_schema(events)
