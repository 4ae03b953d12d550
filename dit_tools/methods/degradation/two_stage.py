"""Two rounds of blur, resizing, noise and JPEG: what photographs of the web went through."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.degradation import Degradation
from dit_tools.methods.degradation.downscale import resized
from dit_tools.methods.degradation.jpeg import Jpeg

KINDS = ("iso", "aniso", "general-iso", "general-aniso", "plateau-iso", "plateau-aniso")
SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
FILTERS = ("box", "bilinear", "bicubic")
SINC = 0.1  # probability of a ringing kernel in place of a blur
GREY = 0.4  # probability of grey noise


@dataclass(frozen=True)
class Round:
    """The ranges of one round."""

    blur: float  # probability of any blur
    sigma: float  # the most, in pixels
    resize: tuple[float, float, float]  # probabilities of larger, smaller, unchanged
    scale: tuple[float, float]
    noise: float  # the most, of 255
    photons: float  # the most of the Poisson noise's scale


FIRST = Round(1.0, 3.0, (0.2, 0.7, 0.1), (0.15, 1.5), 30.0, 3.0)
SECOND = Round(0.8, 1.5, (0.3, 0.4, 0.3), (0.3, 1.2), 25.0, 2.5)


@method(
    paper="arXiv:2107.10833",
    title="Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data",
    year=2021,
    authors="Wang, Xie, Dong, Shan",
)
class TwoStage(Degradation):
    """The pipeline of Real-ESRGAN with its ranges; the result is smaller by ``scale``.

    Each round blurs with one of seven kinds of kernel, resizes by a random factor, adds Gaussian
    or Poisson noise and compresses; at the end a sinc filter leaves ringing. Differs from the
    paper: libjpeg in place of a differentiable JPEG.
    """

    scale: float = param(4.0, "factor by which sides become shorter", ge=1, le=16)
    second: float = param(1.0, "probability of the second round", ge=0, le=1)

    def apply(self, image: Any, rng: Any) -> Any:
        """The spoilt image at ``1 / scale`` of its size, values k / 255, float32."""
        import numpy as np

        height, width = (max(1, round(side / self.scale)) for side in image.shape[:2])
        size = (height, width)
        image = _compressed(_noisy(_resized(_blurred(image, FIRST, rng), image.shape, FIRST, rng), FIRST, rng), rng)
        if rng.random() < self.second:
            image = _noisy(_resized(_blurred(image, SECOND, rng), size, SECOND, rng), SECOND, rng)
        ringing = sinc(rng.uniform(math.pi / 3, math.pi), _odd(rng)) if rng.random() < 0.8 else None
        first, name = rng.random() < 0.5, FILTERS[rng.integers(3)]
        if first:  # the order of the two last steps is drawn
            image = _compressed(_filtered(resized(image, size, name), ringing), rng)
        else:
            image = _filtered(resized(_compressed(image, rng), size, name), ringing)
        return (image.clip(0, 1) * 255).round().astype(np.float32) / np.float32(255)


def _odd(rng: Any) -> int:
    return 7 + 2 * int(rng.integers(8))  # 7, 9, ..., 21


def _blurred(image: Any, this: Round, rng: Any) -> Any:
    if rng.random() >= this.blur:
        return image
    size = _odd(rng)
    if rng.random() < SINC:
        lowest = math.pi / 3 if size < 13 else math.pi / 5
        return _filtered(image, sinc(rng.uniform(lowest, math.pi), size))
    kind = KINDS[rng.choice(len(KINDS), p=SHARES)]
    sigmas = rng.uniform(0.2, this.sigma, 2)
    angle = rng.uniform(-math.pi, math.pi)
    most = 4.0 if kind.startswith("general") else 2.0
    least = 0.5 if kind.startswith("general") else 1.0
    beta = rng.uniform(least, 1) if rng.random() < 0.5 else rng.uniform(1, most)
    return _filtered(image, bell(kind, size, sigmas, angle, beta))


def bell(kind: str, size: int, sigmas: Any, angle: float, beta: float) -> Any:
    """A kernel (size, size) with sum 1, of one of KINDS.

    Gaussian ``exp(-q/2)``, general ``exp(-q^beta/2)``, plateau ``1 / (q^beta + 1)``, where
    ``q`` is the squared distance in units of ``sigmas`` (pixels) along axes turned by ``angle``.
    """
    import numpy as np

    first, second = (sigmas[0], sigmas[0] if kind.endswith("-iso") or kind == "iso" else sigmas[1])
    y, x = np.mgrid[:size, :size] - size // 2
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    q = (along / first) ** 2 + (across / second) ** 2
    if kind.startswith("plateau"):
        kernel = 1 / (q**beta + 1)
    else:
        kernel = np.exp(-0.5 * q ** (beta if kind.startswith("general") else 1.0))
    return (kernel / kernel.sum()).astype(np.float32)


def sinc(cutoff: float, size: int) -> Any:
    """A circular low-pass kernel (size, size) with sum 1: ``w J1(w r) / (2 pi r)``, w the cutoff."""
    import numpy as np

    y, x = np.mgrid[:size, :size] - size // 2
    r = np.hypot(x, y)
    kernel = cutoff * _bessel(cutoff * r) / (2 * math.pi * np.maximum(r, 1e-9))
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).astype(np.float32)


def _bessel(x: Any) -> Any:
    """The Bessel function J1 by its integral, ``mean of cos(t - x sin t)`` over half a turn."""
    import numpy as np

    t = (np.arange(256) + 0.5) * math.pi / 256
    return np.cos(t - x[..., None] * np.sin(t)).mean(axis=-1)


def _filtered(image: Any, kernel: Any) -> Any:
    import cv2

    if kernel is None:
        return image
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101).reshape(image.shape)


def _resized(image: Any, whole: tuple[int, ...], this: Round, rng: Any) -> Any:
    """At a random factor of the size ``whole`` (height, width, ...)."""
    kind = rng.choice(3, p=this.resize)
    factor = (rng.uniform(1, this.scale[1]), rng.uniform(this.scale[0], 1), 1.0)[kind]
    height, width = (max(1, round(side * factor)) for side in whole[:2])
    return resized(image, (height, width), FILTERS[rng.integers(3)])


def _noisy(image: Any, this: Round, rng: Any) -> Any:
    import numpy as np

    gaussian, grey = rng.random() < 0.5, rng.random() < GREY
    shape = (*image.shape[:2], 1 if grey else image.shape[2])
    if gaussian:
        noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(rng.uniform(1, this.noise) / 255)
    else:
        clean = image.clip(0, 1).mean(axis=2, keepdims=True) if grey else image.clip(0, 1)
        levels = 2.0 ** math.ceil(math.log2(max(2, len(np.unique((clean * 255).round())))))
        counted = rng.poisson(clean.astype(np.float64) * levels) / levels
        noise = ((counted - clean) * rng.uniform(0.05, this.photons)).astype(np.float32)
    return (image + noise).clip(0, 1)


def _compressed(image: Any, rng: Any) -> Any:
    return Jpeg(quality=(30.0, 95.0), halved=1.0).apply(image, rng)
