"""The record, its schema, and what other programs' images say."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry, Resource

from dit_tools.core.errors import DitError, InputError
from dit_tools.jobs.events import Outcome, error_event, event
from dit_tools.jobs.expand import Job
from dit_tools.jobs.options import read_values
from dit_tools.jobs.record import base_name, from_image, make_record, options_of
from dit_tools.jobs.settings import Settings, merge_settings
from dit_tools.media import image
from dit_tools.tasks.generate.sample_batch import sample_batch
from tests.support import numpy_model

SCHEMAS = Path(__file__).parents[2] / "docs/schema"


def schema(name):
    loaded = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(loaded)
    return loaded


def validator(name):
    registry = Registry().with_resources(
        (one["$id"], Resource.from_contents(one)) for one in (schema("record"), schema("events"), schema("info"))
    )
    return jsonschema.Draft202012Validator(schema(name), registry=registry)


def record_of(**options):
    model = numpy_model.model(alpha=True)
    (drawn,) = sample_batch(model, [Job(0, "a", 3, merge_settings([read_values(options)]))])
    return make_record(drawn, model)


FULL = {
    "negative_prompt": "n",
    "size": "24x16",
    "steps": 2,
    "guidance": "cfg:rescale=0.5",
    "cfg_scale": 2.5,
    "solver": "heun",
    "schedule": "shifted",
    "embedded_guidance": 3.5,
    "max_tokens": 7,
    "transparent": True,
    "quality": 90,
    "vae_tiling": True,
    "offload": "model",
}


@pytest.mark.parametrize("options", [{}, FULL, {"background": "red"}, {"guidance": "none"}])
def test_records_keep_to_the_schema(options):
    validator("record").validate(record_of(**options))


def test_what_is_recorded_comes_back_as_the_same_settings():
    first = record_of(**FULL)
    again = options_of(first, "a.png")
    settings = merge_settings([again])
    assert settings.guidance == "cfg:rescale=0.5" and settings.cfg_scale == 2.5
    for name in (
        "negative_prompt",
        "steps",
        "solver",
        "schedule",
        "transparent",
        "quality",
        "embedded_guidance",
        "max_tokens",
        "vae_tiling",
        "offload",
    ):
        assert getattr(settings, name) == FULL[name]
    model = numpy_model.model(alpha=True)
    (drawn,) = sample_batch(model, [Job(0, "a", 3, settings)])
    second = make_record(drawn, model)
    assert {**second, "seconds": 0} == {**first, "seconds": 0}


def test_only_base_names_are_recorded(tmp_path):
    (tmp_path / "private" / "net").mkdir(parents=True)
    lora = tmp_path / "private" / "l.safetensors"
    job = Job(0, "a", 3, Settings(model=str(tmp_path / "private/net"), lora=(f"{lora}:0.5",)))
    model = numpy_model.model()
    record = make_record(sample_batch(model, [job])[0], model)
    assert record["model"] == "net" and "private" not in json.dumps(record)
    assert record["lora"][0]["name"] == "l.safetensors" and record["lora"][0]["scale"] == 0.5
    validator("record").validate(record)
    applied = {"name": "l", "scale": 0.5, "sha256": "0" * 64, "layers": 3}
    model.notes = {"loras": [applied]}
    record = make_record(sample_batch(model, [job])[0], model)
    assert record["lora"] == [{"name": "l", "scale": 0.5, "sha256": "0" * 64}]


@pytest.mark.parametrize(
    "reference, name",
    [
        ("owner/name", "owner/name"),
        ("emoji", "emoji"),
        ("/no/where/x.safetensors", "x.safetensors"),
        ("../x", "x"),
        ("~/models/y", "y"),
    ],
)
def test_base_names(reference, name):
    assert base_name(reference) == name


def write(path, **options):
    path.write_bytes(image.encode(np.zeros((8, 8, 3), np.float32), "png", **options))


def test_pictures_of_other_programs_give_what_is_understood(tmp_path):
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text(
        "parameters",
        "a cat, sitting\nNegative prompt: dog\nSteps: 30, Sampler: Euler a, CFG scale: 7.5, "
        'Seed: 12, Size: 512x768, Model hash: abc, Lora hashes: "x: 1, y: 2"',
    )
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    prompt, options, aside = from_image(str(tmp_path / "a.png"))
    assert prompt == "a cat, sitting"
    assert options == {
        "steps": 30,
        "cfg_scale": 7.5,
        "seed": "12",
        "width": 512,
        "height": 768,
        "negative_prompt": "dog",
    }
    assert aside == ["Sampler", "Model hash", "Lora hashes"]


def test_a_picture_without_parameters(tmp_path):
    write(tmp_path / "a.png")
    with pytest.raises(InputError, match="holds no parameters of a generation"):
        from_image(str(tmp_path / "a.png"))


def test_a_record_that_cannot_be_followed_names_the_picture(tmp_path):
    write(tmp_path / "a.png", record={"version": 1, "prompt": "a", "solver": "gone"})
    with pytest.raises(InputError, match="no method 'gone'"):
        from_image(str(tmp_path / "a.png"))


KEYS = st.sampled_from(["lora", "guidance", "seed", "steps", "cfg_scale", "model"])
LEAVES = st.none() | st.integers() | st.text(max_size=5) | st.floats()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("name"), inner), max_leaves=4
)


@given(st.dictionaries(KEYS, VALUES))
def test_foreign_records_raise_nothing_but_dit_errors(record):
    try:
        options_of(record, "a.png")
    except DitError as error:
        assert str(error)


def test_events_keep_to_the_schema():
    check = validator("events").validate
    record = record_of()
    check(event("start", command="generate", version="1", items=2, pending=1))
    check(event("item", index=1, path="a.png", prompt="a", seed=0, record=record, seconds=0.1))
    check(event("skip", index=1, path="a.png", reason="it exists"))
    check(error_event(InputError("no", "do"), index=1, path="a.png", prompt="a", seed=0))
    check(Outcome(written=["a"]).event())
    with pytest.raises(jsonschema.ValidationError):
        check(event("item", index=0, path="a.png", prompt="a", seed=0))
    with pytest.raises(jsonschema.ValidationError):
        check(event("other"))
