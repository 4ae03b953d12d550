"""DiffEditor: collages, features, energies, and what comes out on the built-in model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dit_tools.core.arrays import to_precision
from dit_tools.core.errors import UsageError
from dit_tools.core.steps import cap_times
from dit_tools.media.image import Picture
from dit_tools.methods.editing import _copy_paste
from dit_tools.methods.editing.diffeditor import _arranged, _Job
from dit_tools.nn.feature_capture import features, mean_similarity, sampled, token_similarity
from tests.support.scenes import half, of, scene_of


def disc(x, y, radius, size=64):
    """A red disc on white, (1, 4, H, W) with its opacity, and where it is."""
    rows, columns = np.mgrid[:size, :size]
    inside = np.clip(radius + 0.5 - np.hypot(columns - x, rows - y), 0, 1).astype(np.float32)
    colours = 1 - inside * np.array([0.1, 0.9, 0.9], np.float32)[:, None, None]
    return np.concatenate([colours, inside[None]])[None], (inside > 0).astype(np.float32)


def scene_with_disc(text, x=40, y=64, radius=22, **values):
    """A scene of the built-in model with a disc at x, y, which is masked."""
    pixels, thing = disc(x, y, radius, 128)
    scene = scene_of("emoji-torch", "red circle", "red circle", pixels=pixels, **values)
    scene.x0 = to_precision(scene.session.encode(pixels), "float32")
    scene.selection = thing
    region = of(text).region(thing > 0).astype(np.float32)
    cells = _copy_paste.to_cells(region, 32).repeat(2, axis=0).repeat(2, axis=1)
    scene.mask = torch.from_numpy(cells)[None, None]
    return scene


def centre(pixels):
    """Where the dark of (3, H, W) lies: x and y."""
    dark = np.clip(1 - pixels[:3].min(axis=0) - 0.3, 0, None)
    rows, columns = np.mgrid[: dark.shape[0], : dark.shape[1]]
    return (dark * columns).sum() / dark.sum(), (dark * rows).sum() / dark.sum()


def test_a_moved_thing_comes_whole_from_where_it_was():
    pixels, thing = disc(20, 32, 9)
    made = _copy_paste.move(pixels[0], thing, 24, -8, 1.0)
    there, _ = disc(44, 24, 9)
    assert abs(made.pixels - there[0]).max() < 0.05
    y, x = np.argwhere(made.placed > 0)[0]
    assert np.allclose(made.origin[y, x], [x - 24, y + 8])
    assert not (made.placed * made.vacated).any() and made.vacated.sum() == (thing > 0.5).sum()


def test_a_resized_thing_keeps_its_centre():
    pixels, thing = disc(30, 34, 10)
    made = _copy_paste.move(pixels[0], thing, 0, 0, 2.0)
    assert np.allclose(centre(made.pixels), [30, 34], atol=0.3)
    assert abs(made.placed.sum() / (thing > 0.5).sum() - 4) < 0.3


def test_a_dragged_point_arrives_and_the_masks_edge_stays():
    pixels = np.zeros((3, 64, 64), np.float32)
    pixels[:, 30:35, 28:33] = 1
    made = _copy_paste.drag(pixels, np.ones((64, 64), np.float32), (30, 32), 10, 0)
    assert made.pixels[0, 32, 40] > 0.5 and made.pixels[0, 32, 26] < 0.1
    inside = np.zeros((64, 64), np.float32)
    inside[20:44, 20:44] = 1
    held = _copy_paste.drag(pixels, inside, (30, 32), 6, 0)
    assert np.array_equal(held.pixels[:, inside == 0], pixels[:, inside == 0])


def test_a_pasted_picture_fits_the_mask_and_its_alpha_cuts_it_out():
    ground, hole = np.ones((3, 32, 32), np.float32), np.zeros((32, 32), np.float32)
    hole[8:24, 4:28] = 1
    thing = np.zeros((10, 10, 4), np.float32)
    thing[3:7, 3:7, 3] = 1
    made = _copy_paste.paste(ground, hole, Picture(thing, None, None, 8, "png"))
    assert (made.pixels[:, hole == 0] == 1).all() and made.pixels[0, 15, 15] < 0.01
    assert made.pixels[0, 9, 9] == 1 and 25 < made.placed.sum() < 60


def test_the_region_of_a_move_holds_both_places_and_that_of_a_drag_is_the_mask():
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:20] = True
    grown = of("diffeditor:right=30,down=5").region(mask)
    assert grown[10:20, 10:20].all() and grown[15:25, 40:50].all() and not grown[30:].any()
    for text in ("diffeditor:task=drag,right=9", "diffeditor", "diffeditor:task=paste"):
        assert of(text).region(mask) is mask


def test_energies():
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 5, 4, 4)
    one = torch.zeros(1, 1, 4, 4)
    one[..., 1, 2] = 1
    assert torch.isclose(token_similarity(a, a, one), torch.tensor(1.0))
    expected = torch.nn.functional.cosine_similarity(a[0, :, 1, 2], b[0, :, 1, 2], dim=0)
    assert torch.isclose(token_similarity(a, b, one), expected)
    assert torch.isclose(mean_similarity(a, b, one, one), (expected + 1) / 2)
    places = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="xy"), -1)
    assert torch.allclose(sampled(a, places), a, atol=1e-5)
    shifted = sampled(a, places - torch.tensor([1.0, 0.0]))
    assert torch.allclose(shifted[..., 1:], a[..., :-1], atol=1e-5)


@pytest.mark.parametrize("family", ["sd3", "flux", "pixart", "sana", "zimage", "lumina2"])
def test_features_are_the_image_tokens_and_carry_gradients(family):
    scene = scene_of(family, "1", "1")
    model = scene.session.model
    grid = tuple(side // model.family.patch for side in scene.x0.shape[-2:])
    blocks, ask = model.network.blocks(), scene.ask("source", scale=1.0)
    last = len(blocks) - 1
    x = scene.x0.clone().requires_grad_(True)
    with torch.enable_grad():
        found = features(blocks, (0, last), grid, lambda: ask(x, 0.5))
        (slope,) = torch.autograd.grad(found[1].sum(), x)
    assert [f.shape[2:] for f in found] == [grid, grid] and slope.abs().max() > 0
    moved = scene.x0.clone()
    moved[..., -1, -1] += 1  # the last token must move most where it lies
    again = features(blocks, (0,), grid, lambda: ask(moved, 0.5))[0] - found[0]
    assert again.detach().abs().sum(1)[0].argmax() == grid[0] * grid[1] - 1


def test_guidance_lowers_the_energy():
    scene = scene_with_disc("diffeditor:right=48", steps=10)
    method = of("diffeditor:right=48")
    times = cap_times(scene.times[3:], scene.path)
    job = _Job.of(method, scene, times)
    x = job.start()

    def energy(z):
        with torch.no_grad():
            pairs = zip(job._features(z, times[0]), job._features(job.guide[0], times[0]), strict=True)
            return float(sum(job._energy(a, b) for a, b in pairs))

    slope = job.gradient(x, x, 0)
    assert (slope * (1 - scene.mask)).abs().max() == 0
    inside = ((x * scene.mask) ** 2).sum() ** 0.5
    assert torch.isclose((slope**2).sum() ** 0.5, inside, rtol=1e-4)
    assert energy(x - 0.1 * slope) < energy(x) < energy(x + 0.1 * slope)


def test_a_disc_is_moved_and_the_rest_is_kept():
    text = "diffeditor:right=48,strength=0.5"
    scene = scene_with_disc(text, steps=8)
    made = of(text).edit(scene)
    assert torch.equal(made[:, :, :2], scene.x0[:, :, :2])  # above both places
    x, y = centre(scene.session.model.codec.decode(made)[0])
    assert abs(x - 88) < 16 and abs(y - 64) < 16  # half a token


@pytest.mark.parametrize("text", ["diffeditor", "diffeditor:task=drag,scale=3"])
def test_no_displacement_is_no_edit(text):
    scene = scene_of(mask=half((16, 16)))
    assert of(text).edit(scene) is scene.x0


def test_pasting_follows_the_reference_and_needs_one():
    scene = scene_with_disc("diffeditor:task=paste", steps=4)
    made = of("diffeditor:task=paste,strength=0.5").edit(scene)
    rough = to_precision(
        scene.session.encode(_arranged(of("diffeditor:task=paste"), scene).pixels[None].astype(np.float32)), "float32"
    )
    inside = scene.mask.expand_as(made) > 0
    assert (made - rough)[inside].abs().mean() < 0.7 * (scene.x0 - rough)[inside].abs().mean()
    look = of("diffeditor:task=appearance").edit(scene)
    assert look.isfinite().all() and not torch.equal(look, scene.x0)
    scene.references = []
    with pytest.raises(UsageError, match="needs --reference"):
        of("diffeditor:task=paste").edit(scene)
