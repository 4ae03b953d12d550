"""Each step against its formula."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dit_tools.core.errors import InputError
from dit_tools.methods import degradation
from dit_tools.methods.degradation import motion_blur, two_stage
from tests.support import photographs


def made(text: str, image: np.ndarray, seed: int = 0) -> np.ndarray:
    return degradation.parse(text).apply(image, np.random.default_rng(seed))


def test_noise_has_its_deviation_and_is_not_clipped() -> None:
    added = made("noise:sigma=25", np.ones((200, 200, 3), np.float32)) - 1
    assert added.std() * 255 == pytest.approx(25, rel=0.02) and added.max() > 0.1
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.03


def test_grey_noise_is_equal_in_all_colours() -> None:
    added = made("noise:sigma=25,grey=1", np.zeros((20, 20, 3), np.float32))
    assert (added[..., 0] == added[..., 2]).all() and added.std() > 0


def test_a_range_is_drawn_between_its_ends() -> None:
    flat = np.full((100, 100, 1), 0.5, np.float32)
    found = [(made("noise:sigma=5..50", flat, seed) - 0.5).std() * 255 for seed in range(60)]
    assert 4 < min(found) < 15 and 40 < max(found) < 52


def test_clip_is_what_a_file_holds() -> None:
    image = np.array([[[-1.0], [0.5], [3.0]]], np.float32)
    assert (made("clip", image).ravel() == np.array([0, 128, 255], np.float32) / 255).all()


def test_poisson_has_the_variance_of_counting() -> None:
    made_ = made("poisson:photons=50", np.full((300, 300, 1), 0.25, np.float32))
    assert made_.mean() == pytest.approx(0.25, rel=0.01) and made_.var() == pytest.approx(0.25 / 50, rel=0.03)


@pytest.mark.parametrize("quality", [10, 90])
def test_jpeg_is_that_of_pillow(quality) -> None:
    image = photographs.scene()
    stored = io.BytesIO()
    Image.fromarray((image * 255).round().astype(np.uint8)).save(stored, "JPEG", quality=quality, subsampling=2)
    assert (made(f"jpeg:quality={quality}", image) * 255 == np.asarray(Image.open(stored), np.float32)).all()


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    point = np.zeros((41, 41, 1), np.float32)
    point[20, 20] = 1
    spread = made("blur:sigma=2", point)[..., 0].astype(float)
    distance = np.arange(41) - 20
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(0) * distance**2).sum() == pytest.approx(4, rel=0.03)


def test_a_linear_step_has_its_adjoint() -> None:
    """<Hx, u> = <x, H'u>: a symmetric kernel away from the edges is its own adjoint."""
    rng = np.random.default_rng(0)
    x, u = (np.pad(rng.random((20, 20, 1), dtype=np.float32), ((12, 12), (12, 12), (0, 0))) for _ in range(2))
    for text in ("blur:sigma=1.5", "motion-blur:length=8,angle=30"):
        left, right = (made(text, x) * u).sum(dtype=float), (x * made(text, u)).sum(dtype=float)
        assert left == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize(("length", "angle"), [(1.0, 0.0), (9.0, 0.0), (12.5, 35.0), (9.0, 90.0)])
def test_the_line_has_sum_one_and_its_length(length, angle) -> None:
    kernel = motion_blur.line(length, angle).astype(float)
    y, x = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
    along = x * np.cos(np.radians(angle)) - y * np.sin(np.radians(angle))
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert (kernel * along**2).sum() == pytest.approx(length**2 / 12, abs=0.3 + 0.1 * length)
    assert (kernel * along).sum() == pytest.approx(0, abs=1e-5)


def test_downscale_is_that_of_pillow_but_for_its_rounding() -> None:
    image = (64 + 128 * photographs.scene()).round().astype(np.uint8)  # Pillow clips between rows and columns
    wanted = np.asarray(Image.fromarray(image).resize((24, 18), Image.Resampling.BICUBIC), float)
    assert abs(made("downscale", image.astype(np.float32) / 255).clip(0, 1) * 255 - wanted).max() < 1.01


def test_downscale_of_next_to_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="cannot become"):
        made("downscale:scale=8", np.zeros((3, 50, 3), np.float32))


def test_haze_hides_the_top_and_keeps_the_bottom() -> None:
    image = photographs.scene()
    hazy = made("haze:density=10,air=0.9", image)
    assert abs(hazy[0] - 0.9).max() < 0.05 and abs(hazy[-1] - image[-1]).max() < 1e-6


def test_low_light_is_its_power_law() -> None:
    image = photographs.scene()
    assert np.allclose(made("low-light:gain=0.5,gamma=2", image), 0.5 * image**2, atol=1e-6)


@pytest.mark.parametrize("kind", two_stage.KINDS)
@pytest.mark.parametrize("beta", [0.7, 1.7])
def test_kernels_have_sum_one_and_no_negative_part(kind, beta) -> None:
    kernel = two_stage.bell(kind, 21, (2.0, 0.7), 0.4, beta)
    assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel.min() >= 0
    turned = two_stage.bell(kind, 21, (2.0, 0.7), 1.9, beta)
    assert np.allclose(kernel, turned, atol=1e-7) == kind.endswith("-iso") or kind == "iso"


@pytest.mark.parametrize("cutoff", [1.1, 2.5])
def test_the_ringing_kernel_passes_low_frequencies_only(cutoff) -> None:
    kernel = two_stage.sinc(cutoff, 21).astype(float)
    assert kernel.sum() == pytest.approx(1, abs=1e-6) and kernel.min() < 0

    def passed(frequency: float) -> float:
        return (kernel.sum(0) * np.cos(frequency * (np.arange(21) - 10))).sum()

    assert passed(0.4 * cutoff) > 0.8 and abs(passed(min(1.7 * cutoff, 3.1))) < 0.2


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_two_stages_give_the_size_and_8_bits(scale) -> None:
    for seed in range(8):
        spoilt = made(f"two-stage:scale={scale}", photographs.scene(61, 90), seed)
        assert spoilt.shape == (round(61 / scale), round(90 / scale), 3)
        assert np.allclose(spoilt * 255, (spoilt * 255).round(), atol=1e-4) and 0 <= spoilt.min() <= spoilt.max() <= 1
