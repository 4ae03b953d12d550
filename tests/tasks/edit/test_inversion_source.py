"""Latent files and other models as source of an edit, masks from words, margins, text timing."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest

from dit_tools.core import spec
from dit_tools.core.errors import DitError, ModelError, UsageError
from dit_tools.media import image
from dit_tools.media.latent_file import Latent, pack_latent, unpack_latent
from dit_tools.methods.editing import Origin
from dit_tools.models.loading.load import load
from dit_tools.tasks import invert
from dit_tools.tasks.edit import region, task
from tests.methods.editing import test_methods as methods
from tests.support.program import dit

FAST = {"steps": 3}


@functools.cache
def model(backend="onnx"):
    return load("emoji", backend=backend)


def drawn(height=64, width=64):
    """A red disc on white, (H, W, 3)."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    made = np.ones((height, width, 3), np.float32)
    made[x**2 + y**2 < 0.4] = (0.9, 0.1, 0.1)
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    (folder / "disc.png").write_bytes(image.encode(drawn(), "png"))
    (folder / "other.png").write_bytes(image.encode(drawn()[:, :, ::-1], "png"))
    asked = invert.Request([str(folder / "disc.png")], "red circle", FAST, output=str(folder / "disc.latent"))
    invert.plan_inversion(asked, lambda event: None, lambda *_: model()).start()
    return folder


def run(place, backend="onnx", **request):
    """The events of a run in this process."""
    events: list[dict] = []
    values = {"values": FAST, "overwrite": True, "output": str(place / "out.png")} | request
    values["picture"] = str(place / values.get("picture", "disc.png"))
    task.plan_edit(task.Request(**values), events.append, lambda *_: model(backend)).start()
    return events


# latent files ------------------------------------------------------------------------------------


def test_a_latent_file_gives_the_picture_back_and_edits_it(place):
    latent = str(place / "disc.latent")
    one, two = (
        run(place, prompt=prompt, inversion=latent, values={}, method="inversion:target_scale=1")[1]
        for prompt in ("red circle", "blue square")
    )
    again = run(
        place,
        prompt="red circle",
        inversion="edict",
        source_prompt="red circle",
        method="inversion:strength=1,target_scale=1",
    )[1]
    assert one["psnr"] == pytest.approx(again["psnr"], abs=0.1) and one["psnr"] > two["psnr"] + 3
    assert one["calls"] == 6 and again["calls"] == 12  # the way there is in the file
    assert one["record"]["latent"] == "disc.latent" and one["record"]["steps"] == 3


def test_a_latent_file_with_a_mask_keeps_the_rest_bit_for_bit(place):
    item = run(
        place,
        prompt="blue square",
        inversion=str(place / "disc.latent"),
        values={},
        method="inversion",
        mask="20,20,24,24",
    )[1]
    assert item["psnr_outside"] == 200 and item["psnr_inside"] < 60


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"picture": "other.png"}, "made from another image"),
        ({"values": {"steps": 4}}, "--steps: --inversion .*disc.latent has decided that"),
        ({"source_prompt": "a cat"}, "was inverted with 'red circle'"),
        ({"strength": 0.5}, "--strength: --inversion .*disc.latent has decided that"),
        ({"method": "flowedit"}, "--method flowedit does not invert"),
        ({"source_model": "emoji"}, "is inverted already"),
    ],
)
def test_what_a_latent_file_decides_is_refused(place, request_, message):
    values = {"prompt": "x", "inversion": str(place / "disc.latent"), "values": {}} | request_
    with pytest.raises(DitError, match=message):
        error = next((e for e in run(place, **values) if e["type"] == "error"), None)
        raise DitError(error["message"] if error else "it ran")


def test_a_latent_file_of_another_model_is_refused_by_its_hash(place):
    latent = unpack_latent(place / "disc.latent")
    other = place / "foreign.latent"
    other.write_bytes(pack_latent(Latent(latent.arrays, {**latent.record, "model_revision": "0" * 40})))
    with pytest.raises(ModelError, match="foreign.latent: made with revision 000"):
        run(place, prompt="x", inversion=str(other), values={})
    done = dit("edit", "disc.png", "x", "--inversion", "foreign.latent", cwd=place)
    assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
    done = dit("edit", "disc.png", "x", "--inversion", "gone.latent", cwd=place)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr


# another model -----------------------------------------------------------------------------------


def test_cycle_diffusion_between_equal_models_is_that_of_one(place):
    edits = []
    for asked in ({"source_model": "emoji"}, {"inversion": "dpm-encoder"}):
        item = run(place, prompt="blue square", source_prompt="red circle", method="inversion", **asked)[1]
        edits.append(image.read(place / "out.png").pixels)
        assert item["record"]["inversion"].startswith("dpm-encoder")
    assert np.array_equal(*edits)


def test_another_source_model_makes_another_edit_and_the_same_one_the_picture():
    """Codes of one random network, decoded by another with the same latents."""
    scene = methods.scene_of("numpy", "red", "blue", inversion="dpm-encoder", steps=6)
    edit = spec.parse("editing", "inversion:target_scale=1")
    plain = edit.edit(scene)
    brighter = replace(scene, origin=Origin(scene.session, scene.x0 + 0.5))
    assert abs(edit.edit(brighter) - plain).mean() > 0.1
    same = replace(scene, target="red", origin=Origin(scene.session, scene.x0))
    assert np.allclose(edit.edit(same), scene.x0, atol=1e-5)
    with pytest.raises(DitError, match="use --inversion dpm-encoder"):
        edit.edit(replace(brighter, inversion=spec.parse("inversion", "direct")))


# masks from words --------------------------------------------------------------------------------


def test_a_phrase_becomes_a_mask_around_the_thing(place):
    item = run(place, "torch", prompt="blue circle", source_prompt="red circle", mask_text="circle")[1]
    assert item["psnr_outside"] == 200 and item["record"]["mask_text"] == "circle"
    session = methods.scene_of("emoji-torch").session
    picture = image.read(place / "disc.png")
    mask = region.phrase_mask(session, picture, "circle", "red circle")
    disc = picture.pixels[:, :, 1] < 0.5
    assert mask.shape == (64, 64) and 0 < mask.mean() < 1
    assert mask[disc].mean() > mask[~disc].mean()  # tokens are 32 px wide


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"mask_text": "apple", "source_prompt": "a cat"}, "apple: not in the source prompt"),
        ({"mask_text": " "}, "is empty"),
        ({"mask_text": "cat", "mask": "0,0,9,9"}, "--mask and --mask-text exclude each other"),
        ({"outpaint": "1,2"}, "no margins"),
        ({"outpaint": "0,0,0,0"}, "no margins"),
    ],
)
def test_contradictions_are_told_before_a_model_is_loaded(place, request_, message):
    with pytest.raises(UsageError, match=message):
        run(place, prompt="x", **request_)


# margins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(64, 64, 3), (30, 90, 4), (1, 1, 3)])
def test_margins_are_painted_and_the_picture_is_kept_bit_for_bit(place, shape):
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    (place / "in.png").write_bytes(image.encode(pixels, "png", bits=16))
    item = run(place, picture="in.png", prompt="a cat", outpaint="16,0,8,4")[1]
    before, after = (image.read(place / name).pixels for name in ("in.png", "out.png"))
    assert after.shape == (shape[0] + 4, shape[1] + 24, shape[2])
    assert np.array_equal(after[: shape[0], 16 : 16 + shape[1]], before)
    assert (item["width"], item["psnr_outside"]) == (shape[1] + 24, 200)
    assert len(np.unique(after[:, :16].reshape(-1, shape[2]), axis=0)) > shape[0]  # not repeats


def test_margins_and_words_in_an_instructions_file(place):
    line = {"picture": "disc.png", "prompt": "a cat", "outpaint": "0,0,8,0"}
    (place / "todo.jsonl").write_text(json.dumps(line))
    item = run(place, picture=".", instructions=str(place / "todo.jsonl"), output=str(place / "many") + "/")[1]
    assert item["width"] == 72 and item["method"] == "inpaint"


def test_too_large_margins_are_refused(place):
    events = run(place, prompt="x", outpaint="99999,99999,0,0")
    assert "too many" in events[1]["message"]


# text injection ----------------------------------------------------------------------------------


def test_text_injection_lies_between_the_picture_and_editing_by_inversion():
    def made(text, source="red heart", target="cat face"):
        return spec.parse("editing", text).edit(methods.scene_of("emoji", source, target, steps=6))

    scene = methods.scene_of("emoji", steps=6)
    held = made("text-injection:hold=1")
    assert abs(held - scene.x0).max() < 5e-5
    free = made("text-injection:hold=0,mix=1")
    plain = made("inversion:strength=1")
    assert np.allclose(free, plain, atol=1e-5)
    far = [float(abs(made(f"text-injection:hold={h}") - scene.x0).mean()) for h in (0.2, 0.8)]
    assert far[0] > far[1] > 0.01
    same = made("text-injection:target_scale=1", "red heart", "red heart")
    assert abs(same - scene.x0).max() < 5e-5


def test_a_tuned_embedding_describes_the_picture_better():
    scene = methods.scene_of("emoji-torch", "red heart", "cat face", steps=3)
    chosen = spec.parse("editing", "text-injection:tune=12,rate=0.05")
    seen: list = []
    scene.prompted(["cat face"], 1.0, change=lambda c: seen.append(c["cond"]) or c)
    tuned = chosen._tuned(scene, seen[0])
    ask = scene.prompted(["cat face"], 1.0)
    misses = []
    for said in (seen[0], tuned):
        noises = scene.session.noise()
        errors = []
        for t in (0.3, 0.6, 0.9):
            noise = noises.fresh()
            p = ask.branch("cond", (1 - t) * scene.x0 + t * noise, t, said)
            errors.append(float((p.velocity - (noise - scene.x0)).square().mean()))
        misses.append(sum(errors))
    assert misses[1] < misses[0]
    with pytest.raises(DitError, match="use --backend torch"):
        chosen.edit(methods.scene_of("emoji", steps=3))
