"""Texts of other programs: settings wherever they stand, JSON read or refused, never drawn as a prompt."""

import io
import json

import pytest
from PIL import Image, PngImagePlugin

from dit_tools.core.errors import InputError
from dit_tools.media.foreign import Generation, from_a1111, from_json, read_generation

SETTINGS = "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 512x640"
VALUES = {"steps": "20", "cfg_scale": "7", "seed": "3", "size": "512x640"}


@pytest.mark.parametrize(
    "text",
    [
        f"a cat\nNegative prompt: dog\n{SETTINGS}",
        f"a cat\nNegative prompt: dog\n{SETTINGS}\n",
        f"a cat\r\nNegative prompt: dog\r\n{SETTINGS}\r\n",
        f"a cat\nNegative prompt: dog\n  {SETTINGS}",
        f"a cat\nNegative prompt: dog\n{SETTINGS}, Version: 1.9\nTemplate: a {{cat|dog}}, Steps: 4",
        f'a cat\nNegative prompt: dog\n{SETTINGS}, Lora hashes: "a: b\nc: d", Version: 1',
        f"a cat\nNegative prompt: dog\n{SETTINGS}\nmade on a Sunday",
    ],
)
def test_settings_are_found_wherever_they_stand(text):
    found = from_a1111(text)
    assert (found.prompt, found.values) == ("a cat", VALUES | {"negative_prompt": "dog"})


def test_what_is_not_understood_is_told():
    told = from_a1111(f"x\n{SETTINGS}, Version: 1\nTemplate: y").aside
    assert told == ["Sampler", "Version", "Template"]
    assert "text behind the settings" in from_a1111(f"x\n{SETTINGS}\nmade on a Sunday").aside


def test_prompts_that_talk_about_steps():
    """The last line with a number of steps counts; a prompt may have lines and no settings at all."""
    assert from_a1111(f"Steps: many\nstairs\n{SETTINGS}").prompt == "Steps: many\nstairs"
    assert from_a1111("Steps: 3, stairs\n" + SETTINGS).values["steps"] == "20"
    assert from_a1111("a cat\n\non a mat") == Generation("a cat\n\non a mat")
    assert from_a1111(f"Negative prompt: dog\n{SETTINGS}").values["negative_prompt"] == "dog"
    assert from_a1111("a cat\nNegative prompt:dog\nbird\n" + SETTINGS).values["negative_prompt"] == "dog\nbird"


SWARM = {
    "sui_image_params": {
        "prompt": "a cat",
        "negativeprompt": "dog",
        "seed": 3,
        "steps": 20,
        "cfgscale": 7.0,
        "width": 512,
        "height": 640,
        "model": "x",
    }
}
NOVEL = {"prompt": "a cat", "uc": "dog", "steps": 20, "scale": 7.0, "seed": 3, "width": 512, "height": 640, "v4": {}}
COMFY = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 3,
            "steps": 20,
            "cfg": 7.0,
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 640}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "dog", "clip": ["4", 1]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m"}},
}


def picture(**texts):
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "keyword, content, aside",
    [("parameters", SWARM, ["model"]), ("Comment", NOVEL, ["v4"]), ("prompt", COMFY, ["CheckpointLoaderSimple"])],
)
def test_json_of_other_programs_is_read(keyword, content, aside):
    found = read_generation(picture(**{keyword: json.dumps(content)}))
    wanted = {"negative_prompt": "dog", "steps": 20, "cfg_scale": 7.0, "seed": 3, "width": 512, "height": 640}
    assert (found.prompt, found.values, found.aside) == ("a cat", wanted, aside)


@pytest.mark.parametrize(
    "text, word",
    [
        ('{"a": 1}', "does not know"),
        ("{broken", "bad JSON"),
        ("{" * 500, "deeper"),
        (json.dumps({"sui_image_params": {"seed": 1}}), "holds no prompt"),
        (json.dumps(SWARM | {"sui_image_params": {"prompt": "a", "steps": [1]}}), "for a number"),
        (json.dumps(COMFY | {"9": COMFY["3"]}), "2 samplers"),
        (json.dumps(COMFY | {"6": {"class_type": "Odd", "inputs": {}}}), "no plain prompt"),
        ('{"steps": ' + "9" * 5000 + "}", "5000 digits"),
    ],
)
def test_other_json_is_refused_and_never_a_prompt(text, word):
    with pytest.raises(InputError, match=word):
        from_json(text, "a.png")


def test_a_graph_that_leads_round_in_circles_ends():
    nodes = COMFY | {"6": {"class_type": "Pass", "inputs": {"conditioning": ["6", 0]}}}
    with pytest.raises(InputError, match="no plain prompt"):
        from_json(json.dumps(nodes), "a.png")


def test_an_image_that_says_nothing():
    assert read_generation(picture(Title="a cat")) is None
