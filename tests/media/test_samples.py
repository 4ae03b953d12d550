"""Samples keep depth and values; hidden colours are replaced by visible ones."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.core.errors import UsageError
from dit_tools.media import image, samples
from tests.support import photographs


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (16, np.uint16)])
def test_samples_come_back_exactly(bits, kind) -> None:
    every = np.arange(1 << bits, dtype=kind).reshape(-1, 16, 1)
    assert (samples.to_samples(samples.to_float(every), bits) == every).all()


def test_values_are_clipped_and_rounded() -> None:
    made = samples.to_samples(np.array([[[-1.0], [0.5 / 255 + 1e-6], [2.0]]], np.float32), 8)
    assert made.ravel().tolist() == [0, 1, 255]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_file_keeps_depth_channels_and_profile(tmp_path, channels, bits) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = samples.Photo(photographs.samples(20, 30, channels, bits), profile, None, "")
    path = tmp_path / "a.png"
    path.write_bytes(samples.store(made, "png", None, None))
    again = samples.load(path)
    assert again.bits == bits and again.icc == profile
    assert (again.samples == made.samples).all()


def test_deep_samples_become_8_bits_in_a_jpeg() -> None:
    made = samples.Photo(photographs.samples(16, 16, 3, 16), None, None, "")
    assert image.read(samples.store(made, "jpeg", None, None)).bits == 8


def test_samples_of_another_depth_are_refused() -> None:
    with pytest.raises(UsageError, match="pixels must be"):
        image.encode(photographs.samples(4, 4, 3, 16), "png", bits=8)


def test_hidden_colours_are_continued_from_visible_ones() -> None:
    made = np.zeros((40, 40, 4), np.uint8)
    made[:, 20:] = (200, 100, 50, 255)
    filled = samples.fill_transparent(made)
    assert (filled[:, 20:] == (200, 100, 50)).all()
    assert abs(filled[:, 12:20].astype(int) - (200, 100, 50)).max() <= 1


@pytest.mark.parametrize("alpha", [0, 255])
def test_an_image_all_visible_or_all_hidden_stays(alpha) -> None:
    made = photographs.samples(10, 10, 4)
    made[..., 3] = alpha
    assert (samples.fill_transparent(made) == made[..., :3]).all()
