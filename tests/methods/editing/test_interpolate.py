"""NoiseDiffusion: end points, the mixture's formula, noise put right."""

from __future__ import annotations

import numpy as np

from tests.support.scenes import half, of, scene_of


def test_the_ends_are_the_pictures():
    scene = scene_of(mask=half((16, 16)))
    assert of("interpolate:share=0").edit(scene) is scene.x0
    assert np.allclose(of("interpolate:share=1").edit(scene), scene.references[0].x0, atol=1e-6)
    assert scene.session.calls == 0


def test_the_mixture_is_the_papers():
    scene = scene_of()
    one, two = np.random.default_rng(0).normal(size=(2, 1, 3, 16, 16)).astype(np.float32) * 2
    made = of("interpolate:share=0.3,bound=1.5,raw=1.2")._mixed(scene, one, two, 0.6)
    a, c = np.cos(0.15 * np.pi), np.sin(0.15 * np.pi)
    mu, nu = 1.2 * a / (a + c), 1.2 * c / (a + c)
    other = scene.references[0].x0
    expected = a * one.clip(-1.5, 1.5) + c * two.clip(-1.5, 1.5)
    expected += 0.4 * ((mu - a) * scene.x0 + (nu - c) * other)
    assert np.allclose(made, expected, atol=1e-5)


def test_noise_stays_at_its_level_whatever_the_share():
    """a^2 + c^2 + gamma^2 = 1: the noise of two independent images keeps its variance."""
    scene, t = scene_of(), 0.5
    random = np.random.default_rng(3)
    clean = scene.x0, scene.references[0].x0
    for fresh in (0.0, 0.6):
        noise = random.normal(size=(40, *scene.x0.shape)).astype(np.float32)
        spread = []
        for first, second in zip(noise[::2], noise[1::2], strict=True):
            at = [(1 - t) * x + t * n for x, n in zip(clean, (first, second), strict=True)]
            made = of(f"interpolate:share=0.4,bound=0,fresh={fresh}")._mixed(scene, *at, t)
            spread.append(made)
        deviation = float(np.stack(spread).std(axis=0).mean())
        assert abs(deviation - t) < 0.03


def test_as_the_share_goes_to_nothing_the_picture_comes_back():
    scene = scene_of("emoji", "red heart", "red heart", steps=8)
    x0 = scene.x0 * 0.5
    errors = []
    for share in (0.01, 0.5):
        scene = scene_of("emoji", "red heart", "red heart", steps=8, x0=x0)
        made = of(f"interpolate:share={share},bound=0,strength=0.5").edit(scene)
        errors.append(float(abs(made - x0).mean()))
    assert errors[0] < 0.5 * errors[1]


def test_the_middle_lies_between_both_and_extremes_are_bounded():
    scene = scene_of("emoji", "", "", steps=6)
    other = scene.references[0].x0
    made = of("interpolate").edit(scene)
    apart = abs(scene.x0 - other).mean()
    assert abs(made - scene.x0).mean() < apart and abs(made - other).mean() < apart
    wild = scene.x0 * 50
    mixed = of("interpolate:bound=2")._mixed(scene, wild, wild, 0.999)
    assert abs(mixed).max() < 2 * 2**0.5 + 0.1
