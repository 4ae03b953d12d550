"""Masks, frames and the way back into the image, on arrays."""

import numpy as np
import pytest

from dit_tools.core.errors import InputError, UsageError
from dit_tools.media import image
from dit_tools.media.crop import CropBox, crop_around, remove_white, to_model, whole_image
from dit_tools.media.image import Picture
from dit_tools.tasks.edit import mask as masks
from dit_tools.tasks.edit import paste_back, report

RANDOM = np.random.default_rng(0)


def picture(*shape):
    return Picture(RANDOM.random(shape, dtype=np.float32), None, None, 8, "png")


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (100, 30), (30, 100), (3000, 2), (37, 41)])
def test_a_frame_holds_the_whole_picture_and_gives_it_back(size):
    frame = whole_image(size, (64, 64))
    flat = np.full((*size, 3), 0.25, np.float32)
    cut = frame.cut(flat)
    assert cut.shape == (64, 64, 3) and np.allclose(cut, 0.25, atol=1e-6)
    part, rows, columns = frame.back(cut)
    assert part.shape == (*size, 3) and np.allclose(part, 0.25, atol=1e-6)
    assert (rows, columns) == (slice(0, size[0]), slice(0, size[1]))


def test_a_picture_of_the_models_size_goes_through_bit_for_bit():
    pixels = RANDOM.random((64, 64, 3), dtype=np.float32)
    frame = whole_image((64, 64), (64, 64))
    assert np.array_equal(frame.cut(pixels), pixels)
    assert np.array_equal(frame.back(pixels)[0], pixels)


def test_shapes_are_kept():
    """A gradient over a wide image comes back as itself, so nothing is squashed or shifted."""
    wide = np.broadcast_to(np.linspace(0, 1, 200, dtype=np.float32)[None, :, None], (100, 200, 3))
    frame = whole_image((100, 200), (64, 64))
    again = frame.back(frame.cut(np.ascontiguousarray(wide)))[0]
    assert abs(again - wide)[:, 4:-4].max() < 0.02


def test_around_a_small_box_the_frame_is_small():
    frame = crop_around((400, 600, 440, 640), (1000, 1500), (64, 64))
    assert (frame.height, frame.width) == (80, 80)
    assert frame.top <= 400 and frame.top + 80 >= 440 and frame.left <= 600
    corner = crop_around((0, 0, 20, 20), (1000, 1500), (64, 64))
    assert (corner.top, corner.left) == (0, 0)
    assert crop_around((0, 0, 900, 1400), (1000, 1500), (64, 64)) == whole_image((1000, 1500), (64, 64))
    assert crop_around((2, 2, 9, 9), (64, 64), (64, 64)) == CropBox(0, 0, 64, 64, (64, 64), (64, 64))


def test_alpha_is_put_over_white_and_taken_out_again():
    layers = RANDOM.random((8, 8, 4), dtype=np.float32)
    layers[0, 0, 3] = 0
    made = to_model(layers, True)[0].transpose(1, 2, 0)
    assert np.allclose(made[0, 0], [1, 1, 1, 0])
    again = remove_white(made[:, :, :3], made[:, :, 3:])
    solid = layers[:, :, 3] > 0.1
    assert np.allclose(again[solid], layers[:, :, :3][solid], atol=1e-4)


def test_surrounding_white_of_an_opaque_picture_counts_as_transparent():
    layers = np.ones((16, 16, 3), np.float32)
    layers[4:12, 4:12] = (1, 0, 0)
    layers[7:9, 7:9] = 1  # white inside the thing stays opaque
    opacity = to_model(layers, True)[0, 3]
    assert opacity[0, 0] == 0 and opacity[5, 5] == 1 and opacity[8, 8] == 1
    assert np.array_equal(to_model(layers, True)[0, :3], to_model(layers, False)[0])


def test_boxes():
    made = masks.read_mask("3,1,4,2", (10, 12), [])
    assert made.sum() == 8 and made[1:3, 3:7].all()
    assert masks.bounds(made) == (1, 3, 3, 7)
    assert masks.read_mask("-2,-2,4,4", (10, 12), []).sum() == 4
    with pytest.raises(UsageError, match="outside the image of 12x10"):
        masks.read_mask("50,50,4,4", (10, 12), [])


def save(path, pixels):
    path.write_bytes(image.encode(np.asarray(pixels, np.float32), "png"))
    return str(path)


def test_mask_files(tmp_path):
    notes: list[str] = []
    plain = np.zeros((10, 12, 3))
    plain[2:5, 3:6] = 1
    assert masks.read_mask(save(tmp_path / "m.png", plain), (10, 12), notes).sum() == 9
    assert notes == []
    assert masks.read_mask(save(tmp_path / "m.png", plain), (20, 24), notes).sum() > 25
    assert notes.pop() == "mask scaled from 12x10"
    grey = np.full((10, 12, 1), 0.4)
    assert not masks.read_mask(save(tmp_path / "g.png", grey), (10, 12), notes).any()
    assert "not black and white" in notes.pop()
    assert not masks.read_mask(str(tmp_path / "g.png"), (20, 24), notes).any()
    assert "not black and white" in notes.pop() and notes.pop() == "mask scaled from 12x10"
    clear = np.concatenate([np.ones((10, 12, 3)), np.zeros((10, 12, 1))], 2)
    assert not masks.read_mask(save(tmp_path / "a.png", clear), (10, 12), notes).any()
    with pytest.raises(InputError, match="a mask of 12x10 for an image of 40x10; give one"):
        masks.read_mask(str(tmp_path / "m.png"), (10, 40), notes)
    with pytest.raises(InputError, match=r"none\.png"):
        masks.read_mask(str(tmp_path / "none.png"), (10, 10), notes)


def test_a_token_with_one_pixel_to_change_is_changed():
    mask = np.zeros((64, 64), bool)
    mask[17, 33] = True
    made = masks.latent_mask(mask, whole_image((64, 64), (64, 64)), (16, 8, 8), 2)
    assert made.shape == (1, 1, 8, 8) and made.sum() == 4 and made[0, 0, 2:4, 4:6].all()


def test_the_seam_lies_inside_the_mask():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    share = masks.weights(mask, 4)
    assert (share[~mask] == 0).all() and (share[mask] > 0).all() and share[20, 20] == 1
    assert share[10, 20] < share[12, 20] < share[14, 20]
    assert np.array_equal(masks.weights(mask, 0), mask.astype(np.float32))
    assert (masks.weights(np.ones((5, 5), bool), 3) == 1).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("edited", [3, 4])
def test_outside_the_mask_nothing_changes_by_a_bit(channels, edited):
    photo = picture(200, 150, channels)
    mask = np.zeros((200, 150), bool)
    mask[50:120, 40:90] = True
    frame = crop_around(masks.bounds(mask), (200, 150), (64, 64))
    made = paste_back.compose(photo, RANDOM.random((edited, 64, 64), dtype=np.float32), frame, masks.weights(mask, 3))
    kept = np.repeat(photo.pixels, 3, axis=2) if channels == 1 else photo.pixels
    assert made.shape == kept.shape and np.array_equal(made[~mask], kept[~mask])
    assert (made[mask] != kept[mask]).any()


def test_a_picture_keeps_its_alpha_with_a_model_that_has_none():
    photo = picture(64, 64, 4)
    made = paste_back.compose(
        photo, RANDOM.random((3, 64, 64), dtype=np.float32), whole_image((64, 64), (64, 64)), None
    )
    assert np.array_equal(made[:, :, 3], photo.pixels[:, :, 3])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_detail_that_the_model_does_not_see_is_kept_where_little_changes(channels):
    photo = picture(200, 150, channels)
    frame = whole_image((200, 150), (64, 64))
    plain = np.full((4, 64, 64), 0.5, np.float32)
    before = np.repeat(photo.pixels, 3, axis=2) if channels == 1 else photo.pixels
    same = paste_back.compose(photo, plain, frame, None, plain)
    assert np.allclose(same, before, atol=1e-5)
    edit = plain.copy()
    edit[:3, 40:, :] = 0.9
    made = paste_back.compose(photo, edit, frame, None, plain)
    assert np.allclose(made[:90], before[:90], atol=1e-4)
    assert np.allclose(made[150:, :, :3], paste_back.compose(photo, edit, frame, None)[150:, :, :3])


def test_the_report():
    a = RANDOM.random((40, 40, 3), dtype=np.float32)
    mask = np.zeros((40, 40), bool)
    mask[:20] = True
    b = a.copy()
    b[:20] = 1 - a[:20]
    made = report.report(a, b, mask)
    assert made["psnr_outside"] == 200 and made["ssim_outside"] == 1
    mse = np.square(a[:20] - b[:20]).mean()
    assert made["psnr_inside"] == pytest.approx(-10 * np.log10(mse), abs=0.02)
    assert made["ssim_inside"] < 0.9
    assert set(report.report(a[:5, :5], b[:5, :5], None)) == {"psnr"}  # too small for a window
