"""EDICT: two coupled latents that denoise each other, whose steps can be undone exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.paths import Path
from dit_tools.core.registry import method, param
from dit_tools.core.steps import Denoise, Inverted, Step, Stepper, cap_times, transfer_coefficients
from dit_tools.methods.inversion import Inversion


@method(
    paper="arXiv:2211.12446",
    year=2022,
    title="EDICT: Exact Diffusion Inversion via Coupled Transformations",
    authors="Wallace, Gokul, Naik",
)
class Edict(Inversion):
    """Exact up to rounding: each latent takes its DDIM step with the noise of the other (Alg. 1).

    With ``x_s = a x_t + b eps``: ``x' = a x + b eps(y); y' = a y + b eps(x')``, then both mix:
    ``x'' = p x' + (1 - p) y'; y'' = p y' + (1 - p) x''``. Which one goes first alternates. Two
    network calls a step. Runs start where a little signal is left (t = 0.98 on a flow).
    """

    exact = True
    carries = ("pair",)

    mix: float = param(0.93, "mixing weight p; 1 = the two latents never mix", gt=0.5, le=1)

    def usable(self, times: Sequence[float], path: Path) -> tuple[float, ...]:
        """From 0.02 of signal on: at pure noise the step ``a = alpha_s / alpha_t`` is infinite."""
        return cap_times(times, path)

    def invert(self, denoise: Denoise, x0: Array, times: Sequence[float], noise: Any = None) -> Inverted:
        """Two network calls a step. Raises UnsupportedError when a time holds no signal."""
        x, y, p = x0, x0, self.mix
        for i, (t, s) in reversed(list(enumerate(pairwise(times)))):
            x, y = (y, x) if i % 2 else (x, y)  # the parity counts from the noisy end
            y = (y - (1 - p) * x) / p
            x = (x - (1 - p) * y) / p
            y = _undone(denoise, y, x, t, s)
            x = _undone(denoise, x, y, t, s)
            x, y = (y, x) if i % 2 else (x, y)
        return Inverted(x, {"pair": y})

    def back(self, state: Mapping[str, Array]) -> Stepper:
        """The coupled sampler, from the other latent of the pair on."""
        return Coupled(state["pair"], self.mix)


class Coupled(Stepper):
    """The sampler of a pair: ``steps`` gets one latent, ``pair`` is the other, same shape."""

    def __init__(self, pair: Array, mix: float):
        self.pair, self.mix = pair, mix

    def calls(self, steps: int) -> int:
        """Two a step."""
        return 2 * steps

    def steps(self, denoise: Denoise, x: Array, times: Sequence[float], noise: Any) -> Iterator[Step]:
        """Yields the first latent of the pair."""
        y, p = self.pair, self.mix
        for i, (t, s) in enumerate(pairwise(times)):
            x, y = (y, x) if i % 2 else (x, y)
            read = denoise(y, t)
            a, b = _relation(read.path, t, s)
            x = a * x + b * read.eps
            y = a * y + b * denoise(x, t).eps
            x = p * x + (1 - p) * y
            y = p * y + (1 - p) * x
            x, y = (y, x) if i % 2 else (x, y)
            yield Step(i, len(times) - 1, s, x, read)


def _undone(denoise: Denoise, x: Array, other: Array, t: float, s: float) -> Array:
    read = denoise(other, t)
    a, b = _relation(read.path, t, s)
    return (x - b * read.eps) / a


def _relation(path: Path, t: float, s: float) -> tuple[float, float]:
    if path.alpha(t) < 1e-6:
        raise UnsupportedError(
            f"--inversion edict: nothing of the image is left at t = {t:g}", "use --strength below 1"
        )
    return transfer_coefficients(path, t, s)
