"""Null-text inversion: at guidance 5 it comes back where DDIM inversion does not."""

from __future__ import annotations

import functools
import importlib
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.arrays import to_numpy_same_dtype
from dit_tools.core.errors import DitError, UnsupportedError
from dit_tools.jobs.models import open_sampler
from dit_tools.jobs.settings import merge_settings
from dit_tools.media import image
from dit_tools.media.latent_file import Latent, pack_latent, unpack_latent
from dit_tools.methods.inversion.null_text import MASK, STATES, _saying
from dit_tools.models.loading.from_pipeline import model_from_pipeline
from dit_tools.models.loading.load import load
from dit_tools.tasks import from_latent, invert


@functools.cache
def model_of(family):
    if family == "emoji":
        return load("emoji", backend="torch")
    pipe = importlib.import_module(f"tests.support.{family}").pipeline()
    made = model_from_pipeline(pipe, name=family, revision="0", device="cpu", dtype="float32")
    size = min(made.defaults.size, 4 * made.family.vae_scale * made.family.patch)
    made.defaults = replace(made.defaults, size=size)
    return made


def disc():
    """A red disc on white with its opacity, (1, 4, 64, 64)."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    inside = (x**2 + y**2 < 0.5).astype(np.float32)
    pixels = np.stack([np.ones_like(inside), 1 - inside, 1 - inside, inside])
    return pixels[None].astype(np.float32)


def run(text, family="emoji", steps=4, prompt="a red circle", scale=5.0, save=None):
    """The session's image, what was found, and what comes back."""
    chosen = spec.parse("inversion", text)
    session = open_sampler(model_of(family), merge_settings([{"cfg_scale": scale, "steps": steps}]))
    if family == "emoji":
        x0 = session.encode(disc())
    else:
        shape = (1, *session.shape)
        x0 = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    times, guided = session.times(), None if chosen.guided else 1.0
    found = session.invert(chosen, x0, times, prompt, guided)
    return x0, found, session.reconstruct(chosen, found, times, [prompt])


def error(text, *args, **more):
    x0, _, again = run(text, *args, **more)
    return float((x0 - again).square().mean())


def test_at_guidance_5_its_error_is_a_tenth_of_plain_inversions_at_most():
    module = cast(Any, model_of("emoji").network).module
    before = {n: p.clone() for n, p in module.named_parameters()}
    assert error("null-text", steps=8) < 0.1 * error("ddim", steps=8)
    for name, weight in module.named_parameters():
        assert torch.equal(weight, before[name]) and weight.grad is None


def test_more_tuning_comes_nearer_and_without_any_it_is_plain_inversion():
    errors = [error(f"null-text:iterations={n},tolerance=0", steps=3) for n in (0, 1, 6)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] == pytest.approx(error("ddim", steps=3), rel=1e-4)


def test_negative_prompt_inversion_comes_back_as_without_guidance():
    made = error("null-text:start=prompt,iterations=0")
    assert made == pytest.approx(error("ddim", scale=1.0), rel=1e-3)


@pytest.mark.parametrize("family", ["sd3", "flux", "pixart", "sana"])
def test_it_runs_on_every_family_with_a_text(family):
    x0, found, again = run("null-text:iterations=2", family, steps=2, prompt="1")
    assert again.shape == x0.shape and again.isfinite().all()
    assert found.state["nulls"].shape[0] == 2
    assert error("null-text:iterations=4,tolerance=0", family, steps=2, prompt="1") <= error(
        "null-text:iterations=0", family, steps=2, prompt="1"
    )


def test_repeated_tokens_say_what_one_says():
    """The space for tuning, but for its jitter, leaves the prediction as it is."""
    session = open_sampler(model_of("emoji"), merge_settings([{"cfg_scale": 5.0, "steps": 2}]))
    with session.prompted(["x"]) as plain_:
        empty = plain_.conditions["uncond"]
    own = empty[STATES][:1, : int(empty[MASK].sum())]
    x = torch.randn(1, *session.shape, generator=torch.Generator().manual_seed(1))
    said = _saying(empty, own.repeat(1, 8, 1).reshape(1, -1))
    assert int(said[MASK].sum()) == 8 * own.shape[1]
    same = plain_.branch("uncond", x, 0.5, said).raw - plain_.branch("uncond", x, 0.5).raw
    assert abs(same).max() < 1e-4


def test_without_guidance_it_is_refused():
    with pytest.raises(UnsupportedError, match="add --cfg-scale 5"):
        run("null-text", scale=1.0)
    with pytest.raises(UnsupportedError, match="another length"):
        session = open_sampler(model_of("emoji"), merge_settings([{"cfg_scale": 5.0}]))
        _saying(session.conditions(session.request(["x"]))["uncond"], torch.zeros(1, 7))


def test_its_file_comes_back_and_edits_with_the_guidance_it_was_made_for(tmp_path):
    picture, out = tmp_path / "disc.png", str(tmp_path / "disc.latent")
    picture.write_bytes(image.encode(disc()[0].transpose(1, 2, 0), "png"))
    events: list[dict] = []
    values = {"steps": 3, "cfg_scale": 5.0}
    for chosen in ("ddim", "null-text:iterations=40"):
        asked = invert.Request([str(picture)], "a red circle", values, chosen, output=out, overwrite=True)
        invert.plan_inversion(asked, events.append, lambda *_: model_of("emoji")).start()
    plain_one, item = (e for e in events if e["type"] == "item")
    assert item["psnr"] > plain_one["psnr"] + 10 and item["calls_back"] == 6
    latent = unpack_latent(out)
    assert latent.state["nulls"].shape[0] == 3 and "scale=5" in latent.record["guidance"]
    assert "scale=5" in str(from_latent.settings_of(latent, {}, own_prompt=False).guidance)
    made = []
    for prompt in ((), ("a blue circle",)):
        back = from_latent.Request(out, prompt, output=str(tmp_path / f"{len(made)}.png"))
        from_latent.plan_from_latent(back, print, lambda *_: model_of("emoji")).start()
        made.append(image.read(tmp_path / f"{len(made)}.png").pixels)
    assert abs(made[0] - made[1]).mean() > 0.002
    bad = tmp_path / "bad.latent"
    bad.write_bytes(
        pack_latent(Latent({**latent.arrays, "nulls": to_numpy_same_dtype(np.zeros((2, 3)))}, latent.record))
    )
    with pytest.raises(DitError, match="nulls does not fit its times"):
        unpack_latent(bad)
