"""A network over a photograph: no seams, nothing lost, nothing changed at strength 0."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.media.resample import cubic
from dit_tools.media.samples import to_float, to_samples
from dit_tools.models import photo
from dit_tools.tasks.photo.network import enlarge, repair
from tests.support import photographs


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    return photo.load(
        str(photographs.network_folder(tmp_path_factory.mktemp("up"), "superres")), "superres", "cpu", None
    )


@pytest.fixture(scope="module")
def fix(tmp_path_factory):
    return photo.load(
        str(photographs.network_folder(tmp_path_factory.mktemp("fix"), "restore")), "restore", "cpu", None
    )


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiles_give_the_whole_image(up, scale, channels) -> None:
    image = photographs.samples(75, 101, channels)
    whole, tiled = (enlarge(up, image, scale, 1.0, tile, 8) for tile in (0, 32))
    assert whole.shape == (75 * scale, 101 * scale, channels)
    assert apart(whole, tiled) <= 1
    assert apart(whole, enlarge(up, image, scale, 0.0, 0, 8)) > 3  # the network does something


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiles_restore_the_whole_image(fix, channels, bits) -> None:
    image = photographs.samples(203, 190, channels, bits)
    whole, tiled = (repair(fix, image, 1.0, tile) for tile in (0, 64))
    assert whole.shape == image.shape and whole.dtype == image.dtype
    assert apart(whole, tiled) <= (1 if bits == 8 else 2)
    assert apart(whole, image) > 3


def test_too_little_overlap_would_show(fix) -> None:
    """The check above can fail: with no overlap the tiles differ where they meet."""
    from dataclasses import replace

    image = photographs.samples(203, 190)
    assert apart(repair(replace(fix, overlap=0), image, 1.0, 64), repair(fix, image, 1.0, 0)) > 1


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_strength_0_changes_nothing(fix, up, channels, bits) -> None:
    image = photographs.samples(21, 30, channels, bits)
    assert (repair(fix, image, 0.0, 0) == image).all()
    made = enlarge(up, image, 2, 0.0, 0, bits)
    if channels < 4:
        assert (made == to_samples(cubic(to_float(image), (42, 60)), bits)).all()


def test_half_the_strength_is_half_the_change(fix) -> None:
    image = photographs.samples(32, 40, bits=16)
    half, full = (repair(fix, image, s, 0).astype(float) - image for s in (0.5, 1.0))
    inside = (image > 9000) & (image < 56000)  # nothing clipped
    assert abs(half - full / 2)[inside].max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 5), (8, 9)])
def test_small_images(up, fix, size) -> None:
    image = photographs.samples(*size)
    assert enlarge(up, image, 3, 1.0, 32, 8).shape == (3 * size[0], 3 * size[1], 3)
    assert repair(fix, image, 1.0, 32).shape == (*size, 3)


def test_grey_is_the_mean_of_three_equal_channels(fix) -> None:
    grey = photographs.samples(32, 32, 1)
    colour = repair(fix, grey.repeat(3, 2), 1.0, 0)
    assert apart(repair(fix, grey, 1.0, 0)[..., 0], np.rint(colour.mean(axis=2))) <= 1


def test_alpha_and_hidden_colours_stay_when_restoring(fix) -> None:
    image = photographs.samples(40, 48, 4)
    made = repair(fix, image, 1.0, 0)
    assert (made[..., 3] == image[..., 3]).all()
    assert (made[image[..., 3] == 0] == image[image[..., 3] == 0]).all()


def test_hidden_colours_leave_no_fringe_when_enlarging(up) -> None:
    image = np.full((40, 40, 4), 128, np.uint8)
    image[..., 3] = 255
    image[:, :20] = 0  # black and transparent
    made = enlarge(up, image, 2, 0.0, 0, 8)
    visible = made[..., 3] > 0
    assert abs(made[visible][:, :3].astype(int) - 128).max() <= 1
