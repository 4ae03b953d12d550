"""Cyclic one-way diffusion: what is kept is kept, levels are matched, cycles are counted."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.core.paths import Flow
from dit_tools.methods.editing import time_of_noise
from tests.support.gaussian import LINEAR
from tests.support.scenes import half, of, scene_of


@pytest.mark.parametrize("text", ["cow", "cow:cycles=0", "cow:bottom=0.5,settle=0"])
def test_what_is_kept_ends_as_it_was(text):
    mask = half((16, 16))
    scene = scene_of(mask=mask, steps=5)
    made = of(text).edit(scene)
    known = np.broadcast_to(mask == 0, made.shape)
    assert np.array_equal(made[known], scene.x0[known])
    assert abs(made - scene.x0)[~known].max() > 0.05


def test_with_nothing_to_change_the_stored_trajectory_is_followed():
    scene = scene_of(mask=np.zeros((1, 1, 16, 16), np.float32))
    assert np.array_equal(of("cow:cycles=2").edit(scene), scene.x0)


def test_calls():
    scene = scene_of(mask=half((16, 16)), steps=4, cfg_scale=1.0)
    of("cow:cycles=5,leg=3").edit(scene)
    tail = sum(t < 0.77 * 0.8 for t in scene.times)
    assert scene.session.calls == 5 * 3 + tail + (tail + 3)  # cycles, way down, inversion


def test_levels_are_shares_of_noise_on_any_path():
    for share in (0.3, 0.618, 0.769):
        assert np.isclose(time_of_noise(Flow(), share), share)
        t = time_of_noise(LINEAR, share)
        assert np.isclose(LINEAR.sigma(t) / (LINEAR.sigma(t) + LINEAR.alpha(t)), share, atol=1e-4)


def test_the_disturbance_keeps_the_variance_of_the_level():
    """On noise alone r and the fresh noise give sigma of the top again (the forward process)."""
    times, _ = of("cow")._times(scene_of())
    top, low = times[0], times[-1]
    ratio = (1 - top) / (1 - low)
    spread = (top**2 - (ratio * low) ** 2) ** 0.5
    assert np.isclose((ratio * low) ** 2 + spread**2, top**2) and np.isclose(low, 0.8 * top)


def test_cycles_draw_the_inside_towards_what_is_kept():
    """Colours at the seam come nearer to their neighbours' than without cycles."""
    jumps = []
    for cycles in (0, 8):
        pixels = np.full((1, 4, 128, 128), 1, np.float32)
        pixels[:, 1:3] = 0.1  # all red
        scene = scene_of("emoji", "red square", "red square", mask=half((8, 8)), pixels=pixels, steps=6)
        scene.x0 = scene.session.model.codec.encode(pixels)
        made = scene.session.model.codec.decode(of(f"cow:cycles={cycles},leg=2").edit(scene))
        jumps.append(float(abs(made[0, :3, :, :32] - pixels[0, :3, :, :32]).mean()))
    assert jumps[1] < jumps[0]
