"""SSIM against a direct computation, window by window."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.methods.metrics.ssim import Ssim


def direct(x: np.ndarray, y: np.ndarray) -> float:
    """Equation 13 of Wang et al. 2004 with explicit weighted sums over 11 x 11 windows."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    w = np.outer(line, line) / line.sum() ** 2
    values = []
    for c in range(x.shape[0]):
        for i in range(x.shape[1] - 10):
            for j in range(x.shape[2] - 10):
                p, q = x[c, i : i + 11, j : j + 11], y[c, i : i + 11, j : j + 11]
                mp, mq = (w * p).sum(), (w * q).sum()
                vp, vq = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum()
                cov = (w * (p - mp) * (q - mq)).sum()
                values.append((2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return float(np.mean(values))


def test_equation_13() -> None:
    rng = np.random.default_rng(0)
    a = rng.random((2, 3, 14, 16))
    b = (a + 0.2 * rng.standard_normal(a.shape)).clip(0, 1)
    np.testing.assert_allclose(Ssim().of(a, b), [direct(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(Ssim().of(a[:, :1], b[:, :1])[0], direct(a[0, :1], b[0, :1]))


def test_equal_pictures_have_one_and_negatives_less_than_nothing() -> None:
    a = np.random.default_rng(1).random((1, 3, 16, 16))
    assert Ssim().of(a, a)[0] == pytest.approx(1)
    assert Ssim().of(a, 1 - a)[0] < 0


def test_pictures_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="11 pixels"):
        Ssim().of(np.zeros((1, 3, 8, 8)), np.zeros((1, 3, 8, 8)))
