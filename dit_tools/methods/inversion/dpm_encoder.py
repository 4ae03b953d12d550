"""DPM-Encoder: the noises that a stochastic sampler would have to draw to make the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array, concat
from dit_tools.core.paths import Path, log_snr
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Denoise, Inverted, Step, Stepper, cap_times
from dit_tools.methods.inversion import Inversion


@method(
    paper="arXiv:2210.05559",
    year=2022,
    title="Unifying Diffusion Models' Latent Space, with Applications to CycleDiffusion and Guidance",
    authors="Wu, De la Torre",
)
class DpmEncoder(Inversion):
    """Stochastic DDIM read backwards: noisy latents are drawn from the data, and each step's code
    is the noise that joins two of them (Sec. 3.2).

    Exact up to rounding for the same prompt; decoded with another prompt, or by another model of
    the same latents, it is CycleDiffusion. The last step has no noise: what it misses is kept too,
    and put back by the share ``detail``. One network call a step.
    """

    exact = True
    carries = ("codes", "rest")

    eta: float = param(0.1, "noise per step: near 0 = faithful, 1 = DDPM", gt=0, le=1)
    detail: float = param(1.0, "fraction of the last step's residual added back", ge=0, le=1)

    def usable(self, times: Sequence[float], path: Path) -> tuple[float, ...]:
        """From 0.02 of signal on, for clean data must be readable."""
        return cap_times(times, path)

    def invert(self, denoise: Denoise, x0: Array, times: Sequence[float], noise: Any = None) -> Inverted:
        """One network call a step; ``noise`` gives one draw more than there are steps with noise.

        ``codes`` (steps - 1, C, h, w) and ``rest`` (1, C, h, w), for a batch of one.
        """
        path, codes = _path(denoise, x0, times), []
        x = start = path.alpha(times[0]) * x0 + path.sigma(times[0]) * noise.fresh()
        for t, s in pairwise(times[:-1]):
            kept, spread = _parts(path, t, s, self.eta)
            implied = (x - path.alpha(t) * x0) / path.sigma(t)
            ahead = path.alpha(s) * x0 + kept * implied + spread * noise.fresh()
            p = denoise(x, t)
            codes.append((ahead - path.alpha(s) * p.x0 - kept * p.eps) / spread)
            x = ahead
        rest = x0 - denoise(x, times[-2]).x0
        return Inverted(start, {"codes": concat(codes or [x0[:0]]), "rest": rest})

    def back(self, state: Mapping[str, Array]) -> Stepper:
        """Stochastic DDIM with the stored noises."""
        return Decoder(state["codes"], state["rest"] * self.detail, self.eta)


class Decoder(Stepper):
    """Stochastic DDIM whose noises are ``codes`` (steps - 1, C, h, w)."""

    def __init__(self, codes: Array, rest: Array, eta: float):
        self.codes, self.rest, self.eta = codes, rest, eta

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """One network call a step."""
        total = len(times) - 1
        for i, (t, s) in enumerate(pairwise(times)):
            p = denoise(x, t)
            x = p.x0 + self.rest if i == total - 1 else _next(p, s, self.eta, self.codes[i : i + 1])
            yield Step(i, total, s, x, p)


def _next(p: Prediction, s: float, eta: float, code: Array) -> Array:
    kept, spread = _parts(p.path, p.t, s, eta)
    return p.path.alpha(s) * p.x0 + kept * p.eps + spread * code


def _parts(path: Path, t: float, s: float, eta: float) -> tuple[float, float]:
    """How much of ``x_s`` is the noise of ``x_t``, and how much is fresh."""
    ratio = math.exp(2 * (log_snr(path, t) - log_snr(path, s)))
    spread = eta * path.sigma(s) * math.sqrt(max(1.0 - ratio, 0.0))
    return math.sqrt(max(path.sigma(s) ** 2 - spread**2, 0.0)), spread


def _path(denoise: Denoise, x0: Array, times: Sequence[float]) -> Path:
    known = getattr(denoise, "path", None)
    return known if known is not None else denoise(x0, times[-2]).path
