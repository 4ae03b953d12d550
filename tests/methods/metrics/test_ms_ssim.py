"""MS-SSIM against SSIM's own terms at five scales."""

from __future__ import annotations

import numpy as np
import pytest

from dit_tools.methods.metrics.ms_ssim import WEIGHTS, MsSsim


def blurred(x: np.ndarray) -> np.ndarray:
    """Weighted mean in each whole window of 11 x 11, by explicit sums over rows and columns."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    line /= line.sum()
    rows = sum(w * x[i : len(x) - 10 + i] for i, w in enumerate(line))
    return sum(w * rows[:, i : rows.shape[1] - 10 + i] for i, w in enumerate(line))


def direct(x: np.ndarray, y: np.ndarray) -> float:
    """Equation 7 of Wang et al. 2003 for one channel."""
    value = 1.0
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            x, y = (a.reshape(len(a) // 2, 2, a.shape[1] // 2, 2).mean((1, 3)) for a in (x, y))
        mx, my = blurred(x), blurred(y)
        vx, vy, cov = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
        contrast = (2 * cov + 9e-4) / (vx + vy + 9e-4)
        if scale == 4:
            contrast = contrast * (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4)
        value *= contrast.mean() ** weight
    return float(value)


def test_equation_7() -> None:
    rng = np.random.default_rng(0)
    a = rng.random((1, 3, 176, 192))
    b = (a + 0.1 * rng.standard_normal(a.shape)).clip(0, 1)
    wanted = np.mean([direct(a[0, c], b[0, c]) for c in range(3)])
    assert MsSsim().of(a, b)[0] == pytest.approx(wanted, rel=1e-9)


def test_equal_images_have_one_and_noise_less_the_more_there_is() -> None:
    rng = np.random.default_rng(1)
    a = rng.random((1, 3, 177, 181))
    noise = rng.standard_normal(a.shape)
    values = [MsSsim().of(a, a + s * noise)[0] for s in (0.0, 0.05, 0.2)]
    assert values[0] == pytest.approx(1)
    assert 1 > values[1] > values[2] >= 0


def test_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 160"):
        MsSsim().of(np.zeros((1, 3, 160, 200)), np.zeros((1, 3, 160, 200)))
