"""The similarity filter: probability, memory, the longest pause."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.tasks.stream.similarity import Similarity, cosine


def turned(angle):
    """An image at an angle of ``[1, 0]``."""
    return np.array([np.cos(angle), np.sin(angle)]).reshape(2, 1, 1)


def test_the_same_frame_is_skipped_until_the_longest_pause():
    similar, frame = Similarity(0.98, 3, 0), np.ones((3, 4, 4))
    assert [similar.skips(frame) for _ in range(8)] == [False, *[True] * 3, False, *[True] * 3]


def test_a_threshold_of_1_skips_nothing():
    similar, frame = Similarity(1.0, 10, 0), np.ones((3, 4, 4))
    assert not any(similar.skips(frame) for _ in range(5))


@pytest.mark.parametrize("cos, share", [(0.99, 0.5), (0.995, 0.75), (0.98, 0.0), (0.5, 0.0)])
def test_the_share_of_skipped_frames_is_the_papers(cos, share):
    """max(0, 1 - (1 - cos) / (1 - 0.98)), the other frame always compared with the same one."""
    other, skipped = turned(np.arccos(cos)), 0
    similar = Similarity(0.98, 10**9, 7)
    for _ in range(2000):
        similar._last = turned(0.0)
        skipped += similar.skips(other)
    assert skipped / 2000 == pytest.approx(share, abs=0.04)


def test_frames_are_compared_with_the_last_one_that_was_drawn():
    """A slow turn is noticed: it adds up, since skipped frames are not remembered."""
    similar = Similarity(0.98, 10**9, 0)
    drawn = [not similar.skips(turned(0.02 * i)) for i in range(60)]
    assert 3 <= sum(drawn) < 40


def test_a_seed_decides():
    frames = [turned(0.14 * (i % 2)) for i in range(30)]
    runs = [[Similarity(0.98, 5, seed).skips(f) for f in frames] for seed in (1, 1)]
    assert runs[0] == runs[1]


def test_black_frames():
    black = np.zeros((3, 2, 2))
    assert cosine(black, black) == 1.0 and cosine(black, black + 1) == 0.0
