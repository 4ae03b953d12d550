"""The cubic enlargement is the one that the networks were trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dit_tools.media.resample import cubic
from tests.support import photographs


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_is_that_of_torch(scale) -> None:
    image = photographs.scene(13, 17)
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    wanted = torch.nn.functional.interpolate(x, scale_factor=scale, mode="bicubic")[0].permute(1, 2, 0)
    assert np.allclose(cubic(image, (13 * scale, 17 * scale)), wanted.numpy(), atol=2e-6)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (1, 1, 1)])
def test_axes_are_kept(shape) -> None:
    assert cubic(np.ones(shape, np.float32), (10, 14)).shape == (10, 14, *shape[2:])
