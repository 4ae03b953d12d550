"""Tiles cover every pixel once and read what lies around."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dit_tools.media.tiles import plan

SIDES = st.integers(1, 40)


@given(SIDES, SIDES, st.integers(1, 16), st.integers(0, 9), st.sampled_from([1, 4]))
def test_every_pixel_is_kept_once_and_read_with_its_surroundings(rows, columns, tile, overlap, multiple) -> None:
    height, width = rows * multiple, columns * multiple
    kept = np.zeros((height, width), int)
    for part in plan(height, width, tile, overlap, multiple):
        kept[part.kept()] += 1
        top, bottom, left, right = part.read
        assert all(edge % multiple == 0 for edge in part.read)
        for read, keep, end in ((top, part.keep[0], 0), (left, part.keep[2], 0)):
            assert read == end or keep - read >= overlap
        for read, keep, end in ((bottom, part.keep[1], height), (right, part.keep[3], width)):
            assert read == end or read - keep >= overlap
    assert (kept == 1).all()


def test_the_inner_part_of_an_enlarged_tile_is_where_it_is_kept() -> None:
    image = np.arange(35 * 50).reshape(35, 50)
    made = np.zeros((70, 100), int)
    for part in plan(35, 50, 16, 3):
        large = image[part.seen].repeat(2, 0).repeat(2, 1)
        made[part.kept(2)] = large[part.inner(2)]
    assert (made == image.repeat(2, 0).repeat(2, 1)).all()


def test_no_tile_size_is_one_tile() -> None:
    (only,) = plan(7, 11, 0, 5)
    assert only.read == only.keep == (0, 7, 0, 11)
