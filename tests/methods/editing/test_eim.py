"""EIM: conditions that are moved, images that follow, in proportion."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.methods.editing.eim import mix_conditions
from tests.support import numpy_model
from tests.support.scenes import half, of, scene_of


def test_conditions_are_moved_along_the_difference_and_masks_are_joined():
    states = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    mask = np.array([[1, 1, 0], [1, 0, 0]], np.int64)
    for amount in (-1.0, 0.5, 1.0):
        made = mix_conditions({"states": states, "mask": mask, "attention_mask": mask > 0}, amount)
        assert np.allclose(made["states"][0], states[0])
        assert np.allclose(made["states"][1], states[0] + amount * (states[1] - states[0]))
        assert np.array_equal(made["mask"], [[1, 1, 0], [1, 1, 0]])
        assert made["attention_mask"].dtype == bool and made["attention_mask"].sum() == 4


def test_the_edit_is_the_difference_of_the_prompts_times_the_amount():
    """On the exact flow to a colour the whole run ends on that colour."""
    colours = [numpy_model.colour(text, 3) for text in ("red", "blue")]
    for amount in (-0.5, 0.25, 1.0):
        scene = scene_of(steps=6)
        text = f"eim:amount={amount},scale=1,picture=0,strength=1"
        shift = (of(text).edit(scene) - scene.x0).mean((0, 2, 3))
        assert np.allclose(shift, amount * (colours[1] - colours[0]), atol=0.05)


def test_the_pictures_own_direction_is_what_the_predictions_differ_by():
    scene = scene_of()
    colours = [numpy_model.colour(text, 3) for text in ("red", "blue")]
    found = of("eim:draws=3")._direction(scene, (0.9, 0.0))
    assert np.allclose(found[0, :, 4, 4], colours[1] - colours[0], atol=1e-5)


def test_small_amounts_change_little_and_opposite_ones_go_apart():
    made = {}
    for amount in (-0.5, 0.1, 0.5):
        scene = scene_of("emoji", "a red heart", "a blue heart", steps=4)
        made[amount] = of(f"eim:amount={amount},draws=2").edit(scene) - scene.x0
    assert abs(made[0.1]).mean() < 0.5 * abs(made[0.5]).mean()
    assert _cosine(made[-0.5], made[0.5]) < 0.5 < _cosine(made[0.1], made[0.5])


def _cosine(a, b):
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@pytest.mark.parametrize("text", ["eim:amount=0", "eim:strength=0"])
def test_nothing_asked_is_nothing_done(text):
    scene = scene_of(mask=half((16, 16)))
    assert of(text).edit(scene) is scene.x0


def test_calls():
    scene = scene_of(steps=4, cfg_scale=1.0)
    of("eim:strength=1,scale=1,draws=3").edit(scene)
    assert scene.session.calls == 4 + 3 + 4
