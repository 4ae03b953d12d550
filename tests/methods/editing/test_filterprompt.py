"""FilterPrompt: the filters, and that they come through."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.core.errors import UsageError
from dit_tools.methods.editing._filters import filter_image
from tests.support.scenes import of, scene_of

RANDOM = np.random.default_rng(0).uniform(0.1, 0.9, (1, 4, 32, 32)).astype(np.float32)


def saturation(pixels):
    """Mean distance of the largest from the smallest colour of (1, 3 or 4, H, W)."""
    return float((pixels[0, :3].max(axis=0) - pixels[0, :3].min(axis=0)).mean())


def test_none_is_img2img_bit_for_bit():
    made = of("filterprompt:filter=none,strength=0.7").edit(scene_of(steps=4))
    plain = of("img2img:strength=0.7").edit(scene_of(steps=4, solver="euler"))
    assert np.array_equal(made, plain)
    assert filter_image(RANDOM, "none", 1.0) is RANDOM


def test_gray_takes_the_colour_and_leaves_brightness_and_opacity():
    made = filter_image(RANDOM, "gray", 1.0)
    assert np.ptp(made[0, :3], axis=0).max() < 1e-6
    luma = np.tensordot([0.299, 0.587, 0.114], RANDOM[0, :3], 1)
    assert np.allclose(made[0, 0], luma, atol=1e-6) and np.array_equal(made[:, 3], RANDOM[:, 3])
    assert saturation(filter_image(RANDOM, "gray", 0.5)) == pytest.approx(saturation(RANDOM) / 2, 1e-3)


def test_frequencies_are_cut_where_asked_and_both_halves_make_the_whole():
    fine = np.indices((32, 32)).sum(axis=0) % 2
    pixels = np.broadcast_to(fine.astype(np.float32), (1, 3, 32, 32)).copy()
    assert abs(filter_image(pixels, "lowpass", 0.5) - 0.5).max() < 1e-5
    calm = 0.4 + 0.2 * RANDOM[:, :3]
    low, high = filter_image(calm, "lowpass", 0.7), filter_image(calm, "highpass", 0.3)
    assert np.allclose(low + high - 0.5, calm, atol=1e-5)


def test_blur_flattens_and_edges_are_lines_on_white():
    assert filter_image(RANDOM, "blur", 0.5)[:, :3].std() < 0.4 * RANDOM[:, :3].std()
    step = np.ones((1, 3, 32, 32), np.float32)
    step[..., 16:] = 0
    made = filter_image(step, "edge", 1.0)
    assert made[0, 0, 5, 15] < 0.1 and made[0, 0, 5, 3] == 1 and made[0, 0, 5, 28] == 1


def test_colours_are_matched_in_mean_and_covariance():
    other = (0.5 + 0.1 * np.random.default_rng(1).normal(size=(1, 3, 32, 32))).astype(np.float32)
    other[:, 1] += 0.3 * (other[:, 0] - 0.5)
    made = filter_image(0.4 + 0.1 * RANDOM, "colormatch", 1.0, other)
    a, b = made[0, :3].reshape(3, -1), other[0].reshape(3, -1)
    assert np.allclose(a.mean(axis=1), b.mean(axis=1), atol=1e-3)
    assert np.allclose(np.cov(a), np.cov(b), atol=2e-3)


def test_a_gray_picture_makes_a_grayer_edit():
    pixels = np.ones((1, 4, 128, 128), np.float32)
    pixels[:, 1:3, 12:52, 12:52] = 0.1  # red on white
    found = []
    for name in ("none", "gray"):
        scene = scene_of("emoji", "square", "square", pixels=pixels, steps=6)
        scene.x0 = scene.session.model.codec.encode(pixels)
        made = of(f"filterprompt:filter={name},strength=0.4").edit(scene)
        found.append(saturation(scene.session.model.codec.decode(made)))
    assert found[1] < 0.6 * found[0]


def test_holding_pulls_to_the_filtered_picture():
    errors = []
    for pull in (0.0, 0.3, 1.0):
        scene = scene_of(steps=4)
        method = of(f"filterprompt:filter=blur,amount=0.3,strength=1,hold=1,pull={pull}")
        errors.append(float(abs(method.edit(scene) - method._filtered(scene)).mean()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4


def test_matching_colours_needs_a_reference():
    with pytest.raises(UsageError, match="needs --reference"):
        of("filterprompt:filter=colormatch").edit(scene_of(references=0))
