"""A network's output together with what it means, readable as clean data, noise or velocity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Path, scales

KINDS = ("flow", "eps", "v", "x0")
"""``flow``: noise - x0; ``eps``: noise; ``v``: alpha noise - sigma x0; ``x0``: clean data."""


@dataclass(frozen=True)
class Prediction:
    """What the network said at ``(x, t)``: ``raw`` of one ``kind`` on one ``path``.

    ``t`` is one time, or an array (B,) with a time for every sample, as training has.
    The reading that matches ``kind`` is ``raw`` itself, untouched. All are shaped as ``x``.
    Where a reading does not exist it is zero: clean data from a noise prediction at pure noise
    (alpha = 0), noise from a data prediction on clean data (sigma = 0).
    """

    raw: Array
    kind: str
    x: Array
    t: Any
    path: Path

    @staticmethod
    def target(kind: str, x0: Array, noise: Array, path: Path, t: Any) -> Array:
        """What a perfect network of this ``kind`` says about ``alpha x0 + sigma noise`` at ``t``.

        ``x0`` and ``noise`` are shaped alike, (B, ...); ``t`` is one time or (B,).
        """
        if kind == "v":
            alpha, sigma = scales(path, t, x0)
            return alpha * noise - sigma * x0
        return {"flow": lambda: noise - x0, "eps": lambda: noise, "x0": lambda: x0}[kind]()

    @property
    def x0(self) -> Array:
        """Predicted clean latents."""
        alpha, sigma = scales(self.path, self.t, self.x)
        if self.kind == "x0":
            return self.raw
        if self.kind == "flow":
            return (self.x - sigma * self.raw) / (alpha + sigma)
        if self.kind == "v":
            return (alpha * self.x - sigma * self.raw) / (alpha * alpha + sigma * sigma)
        return (self.x - sigma * self.raw) * _inverse(alpha)

    @property
    def eps(self) -> Array:
        """Predicted noise."""
        alpha, sigma = scales(self.path, self.t, self.x)
        if self.kind == "eps":
            return self.raw
        if self.kind == "flow":
            return (self.x + alpha * self.raw) / (alpha + sigma)
        if self.kind == "v":
            return (sigma * self.x + alpha * self.raw) / (alpha * alpha + sigma * sigma)
        return (self.x - alpha * self.raw) * _inverse(sigma)

    @property
    def velocity(self) -> Array:
        """``noise - x0``: the time derivative of ``x`` on the Flow path."""
        return self.raw if self.kind == "flow" else self.eps - self.x0

    def with_raw(self, raw: Array) -> Prediction:
        """The same reading with another output, as guidance makes it."""
        return replace(self, raw=raw)

    def with_x0(self, x0: Array) -> Prediction:
        """The prediction whose clean reading is ``x0``."""
        return replace(self, raw=x0, kind="x0")


def _inverse(scale: Any) -> Any:
    if getattr(scale, "ndim", 0) == 0:
        return 1.0 / scale if scale > 1e-7 else 0.0
    usable = (scale > 1e-7) * 1.0
    return usable / (scale * usable + 1.0 - usable)
