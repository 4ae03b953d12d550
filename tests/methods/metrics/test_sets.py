"""Frechet distance, nearest neighbour and retrieval: formulas, limits, and the shipped judge."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.methods.metrics.frechet import Frechet, frechet
from dit_tools.methods.metrics.nearest import Nearest
from dit_tools.methods.metrics.retrieval import Retrieval
from dit_tools.models.clip import BUCKETS, buckets, clip64, share_found


def test_frechet_of_two_gaussians_by_equation_6() -> None:
    """For commuting covariances the trace is that of the square roots, known by hand."""
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((4000, 3))
    white = (raw - raw.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(raw.T))).T
    a, b = white * [1, 2, 3], white[::-1] * [2, 2, 1] + [1, 0, 0]
    assert frechet(a, b) == pytest.approx(1 + (1 - 2) ** 2 + 0 + (3 - 1) ** 2, abs=1e-8)
    assert frechet(a, a) == pytest.approx(0, abs=1e-8)


def test_frechet_falls_to_nothing_for_the_same_pictures_and_needs_two() -> None:
    images = np.random.default_rng(0).random((6, 3, 64, 64)).astype("float32")
    meter = Frechet().begin()
    meter.update(images, images[:0])
    meter.update(images[:0], images)
    assert meter.value() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two images"):
        Frechet().begin().value()


def test_nearest_finds_a_copy_and_measures_what_is_none() -> None:
    rng = np.random.default_rng(0)
    references = rng.random((5, 3, 32, 32)).astype("float32")
    near = np.clip(references[3:4] + 0.01, 0, 2)
    meter = Nearest().begin()
    meter.update(near, references[:2])
    meter.update(near[:0], references[2:])
    assert meter.value() == pytest.approx(40, abs=0.01)


def test_bags_of_words_ignore_order_case_and_signs_and_are_bounded() -> None:
    one, same, other, empty = buckets(["Red  apple!", "apple red", "green apple", ""])
    assert one.shape == (BUCKETS,)
    np.testing.assert_array_equal(one, same)
    assert 0.2 < one @ other < 0.9 and np.linalg.norm(one) == pytest.approx(1)
    assert not empty.any()


def test_the_share_found_is_exact_on_orthogonal_features() -> None:
    texts = np.eye(4)
    features = texts[[0, 1, 3, 2]]  # the last two are swapped
    assert share_found(features, texts, list("abcd")) == 0.5
    assert share_found(features, texts, ["a", "b", "c", "c"]) == 0.5  # its own other name only


def test_the_judge_tells_a_drawn_heart_from_other_things() -> None:
    """Images that the image-text model has not seen: plain shapes drawn here."""
    rows, columns = np.mgrid[-1.3:1.3:64j, -1.3:1.3:64j]
    x, y = columns, -rows + 0.1
    heart = (x**2 + y**2 - 0.8) ** 3 - 0.9 * x**2 * y**3 < 0
    disc = rows**2 + columns**2 < 1
    drawn = np.ones((2, 3, 64, 64), np.float32)
    drawn[0, :, heart] = [0.9, 0.1, 0.15]
    drawn[1, :, disc] = [0.2, 0.3, 0.9]
    found = clip64().pictures(drawn)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    similarity = found @ clip64().texts(["red heart", "blue circle", "hamburger", "bicycle"]).T
    assert similarity[0].argmax() == 0 and similarity[1].argmax() == 1
    large = drawn.repeat(2, 2).repeat(2, 3)
    np.testing.assert_allclose(clip64().pictures(large), found, atol=0.02)


def test_retrieval_counts_what_the_judge_finds() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((3, 3, 64, 64)).astype("float32")
    names = ["red heart", "pizza", "dog face"]
    meter = Retrieval(among=3).begin()
    meter.update(images[:1], names[:1])
    meter.update(images[1:], names[1:])
    expected = (clip64().pictures(images) @ clip64().texts(names).T).argmax(1) == np.arange(3)
    assert meter.value() == pytest.approx(100 * expected.mean())
    with pytest.raises(ValueError, match="two different prompts"):
        Retrieval().begin().value()
