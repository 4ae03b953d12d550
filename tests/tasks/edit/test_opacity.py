"""Opacity through an edit: what is opaque stays opaque, what varies is edited."""

import numpy as np
import pytest

from dit_tools.media.crop import whole_image
from dit_tools.media.image import Picture
from dit_tools.tasks.edit.paste_back import compose

RNG = np.random.default_rng(0)


def picture(alpha):
    """An image (8, 8) with an alpha channel of that value, or of those."""
    colours = RNG.random((8, 8, 3), np.float32)
    opacity = np.broadcast_to(np.asarray(alpha, np.float32), (8, 8))[:, :, None]
    return Picture(np.concatenate([colours, opacity], axis=2), None, None, 8, "png")


def edited(shown, keep_detail=False):
    """An edit by a model whose opacity has holes."""
    frame = whole_image((8, 8), (8, 8))
    made = RNG.random((4, 8, 8), np.float32)
    made[3, 2:5] = 0
    plain = RNG.random((4, 8, 8), np.float32) if keep_detail else None
    return made, compose(shown, made, frame, None, plain)


@pytest.mark.parametrize("keep_detail", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
def test_even_opacity_stays(alpha, keep_detail):
    """Holes in opaque images were the fault."""
    assert (edited(picture(alpha), keep_detail)[1][:, :, 3] == alpha).all()


def test_colours_of_an_opaque_edit_are_the_models():
    made, after = edited(picture(1.0))
    assert np.allclose(after[:, :, :3], made[:3].transpose(1, 2, 0), atol=1e-6)


def test_varying_opacity_is_edited():
    alpha = np.ones((8, 8))
    alpha[0, 0] = 0
    made, after = edited(picture(alpha))
    assert np.allclose(after[:, :, 3], made[3])
    assert not picture(alpha).opaque and picture(1.0).opaque and picture(0.5).even and not picture(0.5).opaque
