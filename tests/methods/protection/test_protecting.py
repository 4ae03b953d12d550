"""Protection: the bound, the gradients, and latents that move farther than by random noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dit_tools.core import spec
from dit_tools.core.registry import names
from dit_tools.media import image
from dit_tools.media.image import Picture
from dit_tools.methods.protection import ProtectionTask, gradient_ascent
from dit_tools.methods.protection.diffusionguard import jitter_outline
from dit_tools.methods.protection.sds import distillation_gradient
from dit_tools.tasks.protect import protect_image
from tests.support.scenes import scene_of

METHODS = names("protection")


def of(text):
    return spec.parse("protection", text)


def shield_of(family="pixart", mask=None):
    scene = scene_of(family, "1", "1")
    model = scene.session.model
    pixels = model.to_array(0.1 + 0.8 * scene.pixels)
    return ProtectionTask(pixels, model.codec.encode, scene.prompted(["1"], 1.0), model.path, scene.stream.fresh, mask)


def photo(size=(70, 90), channels=3, bits=8):
    steps = 255 if bits == 8 else 65535
    values = np.random.default_rng(0).integers(0, steps + 1, (*size, channels))
    return Picture((values / steps).astype(np.float32), None, None, bits, "png")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("channels, bits", [(3, 8), (4, 8), (1, 8), (3, 16)])
def test_the_bound_holds_in_the_file(name, channels, bits):
    session, picture = scene_of("pixart").session, photo(channels=channels, bits=bits)
    made, facts = protect_image(session, of(f"{name}:levels=3,iterations=2,step=2"), picture, None, "")
    content = image.encode(made, "png", bits=bits)
    before, after = picture.pixels, image.read(content).pixels
    assert abs(after - before).max() * 255 <= 3 + 1e-3
    assert (after != before).any() and facts["latent_shift"] > 0
    if channels == 4:
        assert np.array_equal(after[:, :, 3], before[:, :, 3])


@pytest.mark.parametrize("name", METHODS)
def test_no_levels_is_the_picture_itself(name):
    picture = photo()
    session = scene_of("pixart").session
    made, _ = protect_image(session, of(f"{name}:levels=0"), picture, None, "")
    assert made is picture.pixels and session.calls == 0


def test_the_distilled_gradient_is_autograds_of_the_fixed_error_times_the_latents():
    shield, t = shield_of(), 0.6
    noise = shield.fresh()
    x = shield.pixels.clone().requires_grad_(True)
    z = shield.encode(x)
    with torch.no_grad():
        at = shield.path.alpha(t) * z + shield.path.sigma(t) * noise
        error = shield.denoise(at, t).velocity - (noise - z)
    (expected,) = torch.autograd.grad((error * z).sum(), x)
    assert torch.allclose(distillation_gradient(shield, shield.pixels, t, noise), expected, atol=1e-6)
    assert expected.abs().max() > 0


@pytest.mark.parametrize("masked", [False, True])
def test_the_guard_climbs(masked):
    mask = np.zeros((128, 128), np.float32)
    mask[8:60, 8:60] = 1
    shield = shield_of("emoji-torch", mask if masked else None)
    method = of("diffusionguard:iterations=8,step=2")
    change = method.protect(shield)
    kept = torch.from_numpy(1 - mask) if masked else 1.0
    noises = [shield.fresh() for _ in range(4)]
    with torch.no_grad():
        before, after = (
            sum(float(method.objective(shield, shield.pixels + added, kept, n)) for n in noises)
            for added in (0, torch.nn.functional.pad(change, (0, 0, 0, 0, 0, 1)))
        )
    assert after > before and change.abs().max() <= 8 / 255 + 1e-6


def test_ascent_follows_signs_within_bounds_and_gamut():
    shield = shield_of()
    shield.pixels = shield.pixels * 0 + 0.99
    up = gradient_ascent(shield, 8, 2.0, 10, lambda x: torch.ones_like(x))
    down = gradient_ascent(shield, 8, 2.0, 10, lambda x: -torch.ones_like(x))
    assert torch.allclose(up, torch.full_like(up, 0.01), atol=1e-6)
    assert torch.allclose(down, torch.full_like(down, -8 / 255), atol=1e-6)
    assert not gradient_ascent(shield, 0, 2.0, 10, lambda x: x).any()


def test_masks_wobble_along_their_outline_only():
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 16:48] = 1
    random = np.random.default_rng(0)
    made = [jitter_outline(mask, 0.3, random) for _ in range(6)]
    assert all(m[30:34, 30:34].all() and not m[:8].any() for m in made)
    assert len({m.tobytes() for m in made}) == 6
    assert np.mean([m.sum() for m in made]) < mask.sum()
    assert np.array_equal(jitter_outline(mask, 0, random), mask)


@pytest.mark.parametrize("text", ["sds:lower=false", "sds", "diffusionguard:step=1"])
def test_latents_of_the_built_in_model_move_farther_than_by_noise(text):
    session = scene_of("emoji-torch", "red heart", "red heart").session
    rows, columns = np.mgrid[:64, :64] / 64
    pixels = np.stack([rows, columns, 1 - rows], axis=2).astype(np.float32) * 0.8 + 0.1
    picture = Picture(np.round(pixels * 255) / np.float32(255), None, None, 8, "png")
    spec_text = f"{text}{',' if ':' in text else ':'}iterations=15"
    _, facts = protect_image(session, of(spec_text), picture, None, "red heart")
    assert facts["latent_shift"] > 1.5 * facts["latent_shift_random"]
