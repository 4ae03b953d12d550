"""PSNR against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.methods.metrics.psnr import Psnr


def test_a_known_error_gives_known_decibels() -> None:
    a = np.zeros((2, 3, 4, 4))
    b = np.stack([np.full((3, 4, 4), 0.1), np.full((3, 4, 4), 0.01)])
    np.testing.assert_allclose(Psnr().of(a, b), [20, 40])
    assert Psnr().mean(a, b) == pytest.approx(30)  # of decibels, not of errors
    assert Psnr().of(a, a).tolist() == [np.inf, np.inf]


def test_batches_add_up_and_measurements_share_no_state() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4, 3, 5, 6))
    meter = Psnr().begin()
    meter.update(a[:1], b[:1])
    meter.update(a[1:], b[1:])
    assert meter.value() == pytest.approx(Psnr().mean(a, b))
    with pytest.raises(ValueError, match="no images"):
        Psnr().begin().value()


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="equal shape"):
        Psnr().of(np.zeros((1, 3, 4, 4)), np.zeros((1, 3, 4, 5)))
