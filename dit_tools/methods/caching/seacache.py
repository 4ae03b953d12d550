"""SeaCache: skip while the latents, seen through a filter for their signal, change little."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from dit_tools.core.arrays import Array, namespace
from dit_tools.core.forecast import Forecast, relative_error
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable, geometric_grid
from dit_tools.methods.caching._per_stack import BranchState, attach
from dit_tools.methods.caching._policy import Budget


@method(
    paper="arXiv:2602.18993",
    year=2026,
    title="SeaCache: Spectral-Evolution-Aware Cache for Accelerating Diffusion Models",
    authors="Chung, Hyun, Lee, Han, Cha, Wee, Hong, Heo",
    needs={"stack"},
    identity={"threshold": 0.0},
)
class Seacache(Cache):
    """Forecast what the blocks add, until the filtered latents have changed by ``threshold``.

    The filter is the Wiener filter of a signal whose power falls as ``1 / f^power`` at the current
    noise, ``alpha P / (alpha^2 P + sigma^2)`` along each axis, its mean gain made 1 (Chung et al.
    2026, Eq. 7): early it passes the coarse structure alone, late everything. Relative L1 changes
    from call to call add up while calls are skipped. What the blocks add to their input is
    continued by a straight line through the last two full calls. One number decides for the whole
    call, so an image may depend on its batch. Differs from the paper: the latents are filtered,
    not the features that enter the blocks, as the diffusers library does.
    """

    dial: ClassVar[Tunable] = Tunable("threshold", geometric_grid(0.01, 8.0))

    threshold: float = param(0.25, "accumulated relative change below which calls are skipped; 0 = exact", ge=0)
    max_skips: int = param(2, "calls skipped in a row at most; 0 = no limit", ge=0)
    order: int = param(1, "degree of the forecast of what is added; 0 = reuse", ge=0, le=4)
    power: float = param(2.0, "exponent with which the power of images falls with frequency", gt=0, le=8)
    warmup: int = param(1, "calls computed in full at the beginning", ge=1)

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError when there are no blocks."""

        def begin() -> BranchState:
            policy = Spectral(self.threshold, self.max_skips, run=run, power=self.power)
            return BranchState(policy, Forecast(self.order), relative="input")

        return attach(blocks, run, self.warmup, begin, self.info.name)


@dataclass
class Spectral(Budget):
    """Each call adds the relative change of the filtered latents since the call before."""

    run: RunState = None  # type: ignore[assignment]
    power: float = 2.0
    latest: Array = None

    def cost(self, call: int, entered: Array) -> float:
        """The change, and the filtered latents are kept."""
        before, self.latest = self.latest, self._seen()
        return relative_error(self.latest, before)

    def learn(self, call: int, entered: Array, left: Array) -> None:
        """Start over from here; a call that was asked about before has its latents kept already."""
        super().learn(call, entered, left)
        self.latest = self._seen()

    def _seen(self) -> Array:
        alpha, sigma = 1.0 - self.run.t, self.run.t
        if self.run.path is not None:
            alpha, sigma = self.run.path.alpha(self.run.t), self.run.path.sigma(self.run.t)
        return apply_filter(self.run.x, alpha, sigma, self.power)


def apply_filter(x: Array, alpha: float, sigma: float, power: float) -> Array:
    """Latents (B, C, [F,] H, W) through the filter, float32, over all axes after the second."""
    xp = namespace(x)
    axes = tuple(range(2, x.ndim))
    gain: Array = 1.0
    for axis in axes:
        frequency = abs(xp.fft.fftfreq(x.shape[axis]))
        signal = 1.0 / (frequency**power + 1e-6)
        along = alpha * signal / (alpha * alpha * signal + sigma * sigma + 1e-12)
        along = along.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        gain = gain * along
    mean = float(gain.mean())
    gain = gain / mean if mean > 0 else gain * 0 + 1
    if xp.__name__ == "torch":
        spectrum = xp.fft.fftn(x.float(), dim=axes)
        return xp.fft.ifftn(spectrum * gain.to(x.device), dim=axes).real
    spectrum = xp.fft.fftn(x.astype("float32"), axes=axes)
    return xp.fft.ifftn(spectrum * gain, axes=axes).real
