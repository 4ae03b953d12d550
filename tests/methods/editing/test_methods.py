"""The editing methods: identity limits, formulas on an exact flow, every family, the real model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dit_tools.core.registry import names
from dit_tools.core.steps import ode_step
from dit_tools.jobs.models import open_sampler
from dit_tools.jobs.settings import merge_settings
from dit_tools.methods.editing import last_times
from tests.support import loop, numpy_model
from tests.support.scenes import QUICK, half, model_of, of, scene_of

METHODS = names("editing")
EXAMPLES = {
    "boundary": "boundary:examples=2,shift=20,scale=20",
    "cow": "cow:cycles=1,leg=2",
    "diffeditor": "diffeditor:right=4,travel=2",
    "sine": "sine:train=1",
}
"""Specs that do something, quickly, where the defaults do nothing or take long."""


@pytest.mark.parametrize("name", METHODS)
def test_identity_parameters_give_the_latents_themselves(name):
    identity = of(name).info.identity
    if identity is None:
        assert name == "flowchef"  # it starts from noise, always
        return
    scene = scene_of(mask=half((16, 16)))
    assert type(of(name))(**identity).edit(scene) is scene.x0
    assert scene.session.calls == 0


def test_late():
    assert last_times((1.0, 0.5, 0.0), 0.0) == (0.0,)
    assert last_times((1.0, 0.5, 0.0), 0.01) == (0.5, 0.0)
    assert last_times((1.0, 0.5, 0.0), 1.0) == (1.0, 0.5, 0.0)


def test_img2img_at_full_strength_is_generation_with_the_same_seed():
    scene = scene_of("emoji", target="red heart", seed="5", steps=4)
    session = scene.session
    x, noise = loop.start(session.model, session.plan, session.shape, [5])
    given = session.conditions(session.request(["red heart"]))
    for step in loop.sample(session.model, given, x, session.plan, noise):
        x = step.x
    assert np.array_equal(of("img2img:strength=1").edit(scene), x)


def test_img2img_stays_nearer_with_less_strength():
    far = [
        float(abs((s := scene_of("emoji", target="cat face", steps=8)).x0 - of(f"img2img:strength={k}").edit(s)).mean())
        for k in (0.25, 0.5, 1.0)
    ]
    assert far[0] < far[1] < far[2]


def test_inpaint_keeps_the_known_latents_exactly():
    mask = half((16, 16))
    for text in ("inpaint", "inpaint:resample=3", "inpaint:strength=0.5"):
        scene = scene_of(mask=mask)
        made = of(text).edit(scene)
        known = np.broadcast_to(mask == 0, made.shape)
        assert np.array_equal(made[known], scene.x0[known])
        assert abs(made - scene.x0)[~known].max() > 0.1
    assert scene_of(mask=mask).session.calls == 0


def test_inpaint_calls():
    scene = scene_of(mask=half((16, 16)), steps=4, cfg_scale=1.0)
    of("inpaint:resample=3").edit(scene)
    assert scene.session.calls == 3 * 3 + 1


def test_inpaint_with_all_of_it_masked_is_plain_sampling():
    scene = scene_of(mask=np.ones((1, 1, 16, 16), np.float32))
    made = of("inpaint").edit(scene)
    other = scene_of(solver="euler")
    assert np.allclose(made, of("img2img:strength=1").edit(other), atol=1e-6)


def test_flowedit_with_the_same_prompt_and_scale_changes_nothing():
    for family in ("numpy", "emoji"):
        scene = scene_of(family, "red", "red")
        made = of("flowedit:source_scale=3,target_scale=3,average=2").edit(scene)
        assert np.array_equal(made, scene.x0)


def test_flowedit_is_the_papers_update():
    scene = scene_of(steps=2)
    made = of("flowedit:strength=1,source_scale=1,target_scale=1").edit(scene)
    again = scene_of(steps=2)
    z, (x0, noise) = again.x0, (again.x0, again.stream)
    source, target = again.ask("source", scale=1.0), again.ask("target", scale=1.0)
    for t, s in zip(again.times, again.times[1:], strict=False):
        z_src = (1 - t) * x0 + t * noise.fresh()
        z_tar = z + z_src - x0
        z = z + (s - t) * (target(z_tar, t).velocity - source(z_src, t).velocity)
    assert np.allclose(made, z, atol=1e-5)


def test_flowedit_moves_the_picture_by_the_difference_of_the_prompts():
    """On the exact flow to a colour the edit is that colour's difference; nearer with less."""
    scene = scene_of(steps=8)
    colours = [numpy_model.colour(text, 3)[None, :, None, None] for text in ("red", "blue")]
    made = of("flowedit:strength=1,source_scale=1,target_scale=1").edit(scene) - scene.x0
    assert np.allclose(made.mean((2, 3)), (colours[1] - colours[0])[:, :, 0, 0], atol=0.15)
    shifts = [
        float(abs(of(f"flowedit:strength={k}").edit(s) - s.x0).mean())
        for k in (0.25, 0.5, 1.0)
        for s in (scene_of(steps=8),)
    ]
    assert shifts[0] < shifts[1] < shifts[2]


def test_flowedit_leaves_what_the_mask_leaves_and_can_finish_plainly():
    mask = half((16, 16))
    scene = scene_of(mask=mask)
    made = of("flowedit").edit(scene)
    known = np.broadcast_to(mask == 0, made.shape)
    assert np.array_equal(made[known], scene.x0[known])
    finished = of("flowedit:strength=1,finish=0.4").edit(scene_of(steps=5))
    assert np.isfinite(finished).all()


def test_flowchef_limits():
    mask = half((16, 16))
    scene = scene_of(mask=mask, steps=4)
    free = of("flowchef:pull=0").edit(scene)
    plain = of("img2img:strength=1").edit(scene_of(solver="euler", steps=4))
    assert np.allclose(free, plain, atol=1e-6)
    held = of("flowchef:pull=1,whole=1").edit(scene_of(steps=4))
    assert np.allclose(held, scene.x0, atol=1e-5)
    errors = []
    for pull in (0.05, 0.3, 1.0):
        scene = scene_of(mask=mask, steps=8)
        errors.append(float(abs((of(f"flowchef:pull={pull}").edit(scene) - scene.x0) * (1 - mask)).mean()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4


@pytest.mark.parametrize("inversion", ["edict", "bdia", "dpm-encoder"])
def test_editing_by_an_exact_inversion_with_the_same_prompt_gives_the_picture_back(inversion):
    scene = scene_of("emoji", "red heart", "red heart", inversion=inversion, steps=6)
    made = of("inversion:target_scale=1,source_scale=1").edit(scene)
    assert abs(made - scene.x0).max() < 1e-5


def test_direct_inversion_runs_the_source_beside_the_edit():
    edits = {}
    for inversion in ("direct", "ddim"):
        scene = scene_of("emoji", "red heart", "blue heart", inversion=inversion, steps=4)
        edits[inversion] = of("inversion").edit(scene)
    assert np.allclose(edits["direct"], edits["ddim"], atol=1e-3)  # share = 0: no help from alongside
    scene = scene_of("emoji", "red heart", "blue heart", inversion="direct:share=1", steps=4)
    assert abs(of("inversion").edit(scene) - edits["ddim"]).max() > 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_prompts_matter_on_the_built_in_model(name):
    mask = half((8, 8))
    family = "emoji-torch" if of(name).info.needs else "emoji"
    one, two = (
        of(EXAMPLES.get(name, name)).edit(scene_of(family, "red heart", target, mask=mask, steps=4))
        for target in ("cat face", "green apple")
    )
    assert np.isfinite(np.asarray(one)).all() and abs(one - two).mean() > 1e-3


@pytest.mark.parametrize("family", ["sd3", "flux", "pixart", "sana"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_every_family(name, family):
    session = open_sampler(model_of(family), merge_settings([QUICK]))
    scene = scene_of(family, "", "2", mask=half(session.shape))
    made = of(EXAMPLES.get(name, name)).edit(scene)
    assert isinstance(made, torch.Tensor) and made.shape == scene.x0.shape
    assert made.isfinite().all() and not torch.equal(made, scene.x0)


@pytest.mark.parametrize("family", ["sd3", "flux", "pixart", "sana"])
@pytest.mark.parametrize("inversion", ["edict", "bdia", "dpm-encoder", "direct"])
def test_every_inversion_is_exact_on_every_family(family, inversion):
    scene = scene_of(family, "1", "1", inversion=inversion)
    text = "inversion:strength=0.9,source_scale=1,target_scale=1"
    made = of(text).edit(scene)
    if inversion == "direct":  # its source row is exact, and the edit is plain DDIM
        assert made.isfinite().all()
        return
    assert abs(made - scene.x0).max() < 1e-4


def test_the_path_of_a_session_is_the_models():
    scene = scene_of()
    p = scene.ask("target")(scene.x0, 0.5)
    assert p.path == scene.path and np.allclose(ode_step(p, scene.x0, 0.5, 0.5), scene.x0)
