"""The Bjontegaard difference against published curves and by its own properties."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from dit_tools.core.errors import UsageError
from dit_tools.media.bd_rate import bd_rate

ANCHORS = Path(os.environ.get("DIT_DATA", "data")) / "bench" / "kodak_rd_anchors"
EXPECTED = {  # percent, of published curves on the 24 Kodak images
    ("vtm", "jpeg"): 208.5,
    ("vtm", "webp"): 78.8,
    ("vtm", "bpg_444_x265_ycbcr"): 22.0,
    ("vtm", "hm"): 23.3,
    ("vtm", "av1"): 16.2,
    ("vtm", "compressai-bmshj2018-hyperprior_mse_cuda"): 30.5,
    ("vtm", "compressai-mbt2018_mse_cuda"): 11.0,
    ("vtm", "compressai-cheng2020-anchor_mse_cuda"): 3.7,
    ("vtm", "paper-elic2022_mse"): -7.0,
    ("jpeg", "webp"): -36.2,
    ("jpeg", "bpg_444_x265_ycbcr"): -58.9,
    ("jpeg", "av1"): -62.4,
    ("jpeg", "vtm"): -67.6,
    ("bpg_444_x265_ycbcr", "compressai-bmshj2018-hyperprior_mse_cuda"): 3.9,
    ("bpg_444_x265_ycbcr", "compressai-mbt2018_mse_cuda"): -11.3,
}
CURVE = [(0.1, 26.0), (0.2, 28.5), (0.4, 31.2), (0.8, 34.4), (1.6, 38.0)]


@pytest.mark.skipif(not ANCHORS.is_dir(), reason="DIT_DATA has no published curves")
@pytest.mark.parametrize(("anchor", "test"), EXPECTED)
def test_published_curves_give_the_known_numbers(anchor: str, test: str) -> None:
    def curve(name: str) -> list[tuple[float, float]]:
        results = json.loads((ANCHORS / f"{name}.json").read_text())["results"]
        return list(zip(results["bpp"], results["psnr-rgb"], strict=True))

    assert bd_rate(curve(anchor), curve(test)) == pytest.approx(EXPECTED[anchor, test], abs=0.1)


def test_a_share_of_the_bytes_is_that_share() -> None:
    for share in (0.5, 0.9, 1.0, 2.0):
        other = [(rate * share, quality) for rate, quality in reversed(CURVE)]
        assert bd_rate(CURVE, other) == pytest.approx((share - 1) * 100, abs=1e-9)


def test_both_ways_are_inverse() -> None:
    other = [(rate * 0.8, quality + 0.3) for rate, quality in CURVE]
    there, back = bd_rate(CURVE, other), bd_rate(other, CURVE)
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


def test_interpolation_is_exact_where_the_curve_is_straight() -> None:
    quality = np.linspace(20, 40, 6)
    first = [(float(np.exp(0.2 * q)), float(q)) for q in quality]
    second = [(float(np.exp(0.2 * q - 0.1)), float(q)) for q in quality[::2]]
    assert bd_rate(first, second) == pytest.approx(np.expm1(-0.1) * 100)


def test_too_little_in_common_is_refused() -> None:
    with pytest.raises(UsageError, match="share only"):
        bd_rate(CURVE, [(1.0, 37.0), (2.0, 45.0)])
    with pytest.raises(UsageError, match="two points"):
        bd_rate(CURVE, [(1.0, 37.0), (2.0, 37.0)])
