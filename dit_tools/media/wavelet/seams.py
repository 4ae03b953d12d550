"""Evening out the seam between two tiles.

Each tile is transformed by itself, mirrored at its borders, so a slope that goes on into the next
tile has a kink there, and coarse quantisation turns kinks into a step. What the step is more than
the slopes on both sides explain is spread over the pixels around the seam, unless it is larger than
quantisation could have made it: then it is an edge of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import NDArray

REACH = 12
"""Pixels on each side over which a step is spread."""
SLOPE = 6
"""Pixels on each side from which the slope is taken."""
SPREAD = 15
"""Pixels along the seam over which the step is averaged."""
EDGE = 0.6
"""Steps of the quantiser from which a step is an edge of the image, not one of quantisation."""


def even_out(before: NDArray, after: NDArray, step: float) -> None:
    """Even out the seam between the last row of one part and the first row of the next, in place.

    Args:
        before: Float planes (3, rows, columns).
        after: The rows below, of as many columns; pass transposed views for columns.
        step: The luma quantisation step.
    """
    import cv2
    import numpy as np

    reach = min(REACH, before.shape[1], after.shape[1])
    near = min(SLOPE, reach - 1)
    if near < 1:
        return
    rise = (after[:, near] - after[:, 0] + before[:, -1] - before[:, -1 - near]) / np.float32(2 * near)
    excess = after[:, 0] - before[:, -1] - rise
    excess = cv2.blur(np.ascontiguousarray(excess), (SPREAD, 1), borderType=cv2.BORDER_REPLICATE)
    excess *= np.clip(2 - np.abs(excess) / np.float32(EDGE * step), 0, 1)
    ramp = (0.5 - (np.arange(reach, dtype=np.float32) + 0.5) / (2 * reach))[None, :, None]
    after[:, :reach] -= excess[:, None] * ramp
    before[:, -reach:] += excess[:, None] * ramp[:, ::-1]
