"""BoundaryDiffusion: the hyperplane, and what crossing it does."""

from __future__ import annotations

import numpy as np

from dit_tools.methods.editing.boundary import svm_normal
from tests.support.scenes import half, of, scene_of


def test_the_normal_is_that_of_the_widest_margin():
    random = np.random.default_rng(0)
    side = random.uniform(-3, 3, (20, 1))
    gap = 1 + random.uniform(0, 1, (20, 1)) ** 4  # nearest to the plane: about 1 away
    one, two = np.hstack([-gap, side]), np.hstack([gap, side + 0.1])
    found = svm_normal(one, two, c=1e4)
    assert np.isclose(np.linalg.norm(found), 1) and found[0] > 0.99
    means = (two - one).mean(axis=0)
    assert np.allclose(svm_normal(7 * one + 5, 7 * two + 5, c=1e4), found, atol=1e-6)
    assert (two @ found > one @ found).all() and means @ found > 0


def test_no_other_normal_has_a_wider_margin():
    """With a hard margin; the plane goes through the mean of all, as the paper has no offset."""
    random = np.random.default_rng(1)
    one, two = random.normal(size=(2, 12, 3))
    two[:, 1] += 8
    middle = np.concatenate([one, two]).mean(axis=0)
    both = np.concatenate([middle - one, two - middle])
    w = svm_normal(one, two, c=1e6, passes=5000)
    others = w + 0.05 * random.normal(size=(2000, 3))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert (both @ w).min() > (both @ others.T).min(axis=0).max() - 1e-4


def test_kinds_that_are_the_same_have_no_normal():
    same = np.ones((4, 5))
    assert not svm_normal(same, same).any()


def test_the_latents_cross_the_gap_once():
    scene = scene_of("emoji", "a heart", "a cat face", steps=5, cfg_scale=1.0)
    method = of("boundary:examples=3,strength=0.8")
    normal, gap = method._boundary(scene, (0.98, 0.8, 0.6))
    assert np.isclose(np.linalg.norm(normal), 1) and gap > 0
    assert normal.shape == scene.x0.shape


def test_shifts_grow_and_opposite_ones_go_apart():
    made = {}
    for shift in (-1.0, 0.3, 1.0):
        scene = scene_of("emoji", "a heart", "a cat face", steps=5)
        made[shift] = of(f"boundary:examples=2,shift={shift}").edit(scene) - scene.x0
    assert abs(made[0.3]).mean() < 0.7 * abs(made[1.0]).mean()
    assert (made[-1.0] * made[1.0]).sum() < 0


def test_no_shift_is_no_edit_and_noise_on_the_way_is_shared():
    scene = scene_of(mask=half((16, 16)))
    assert of("boundary:shift=0").edit(scene) is scene.x0
    noisy = scene_of("emoji", "a heart", "a cat face", steps=4)
    tiny = of("boundary:examples=2,shift=0.001,eta=1").edit(noisy)
    assert 0 < abs(tiny - noisy.x0).mean() < 0.02  # the same noise in both rows cancels
