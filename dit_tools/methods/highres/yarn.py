"""NTK by parts: each frequency is interpolated as far as its wave is longer than the image."""

from __future__ import annotations

import math

from dit_tools.core.registry import method, param
from dit_tools.methods.highres._positions import Frequencies, Positions, trained_frequencies


@method(
    paper="arXiv:2410.13925",
    year=2024,
    title="FiTv2: Scalable and Improved Flexible Vision Transformer for Diffusion Model",
    authors="Wang, Lu, Huang, et al.",
    needs={"blocks", "torch"},
    identity={"scale": 1.0},
)
class Yarn(Positions):
    """Interpolate frequencies that turn rarely, keep those that turn often: VisionYaRN.

    Per axis, with ``r = L theta / (2 pi)`` turns over the ``L`` trained tokens and
    ``g = clip((r - slow) / (fast - slow), 0, 1)``: ``theta' = (1 - g) theta / s + g theta``.
    Rotated queries and keys are multiplied by ``0.1 ln s + 1`` (Peng et al. 2023,
    arXiv:2309.00071, whose numbers for text are the defaults: a side of 64 tokens turns 10 times at
    most, so nearly everything is interpolated). Where it applies: as ``ntk``.
    """

    scale: float | None = param(None, "s; none: by the size; 1 = exact", ge=1, le=64)
    proportional: bool = param(False, "scale attention by sqrt(log N / log N_native)")
    fast: float = param(32.0, "turns from which a frequency is kept", gt=0, le=1000)
    slow: float = param(1.0, "turns up to which it is interpolated", ge=0, le=1000)

    def frequencies(self, dim: int, base: float, scale: float, native: int, t: float) -> Frequencies:
        """``(1 - g) theta / s + g theta``."""
        made = []
        for theta in trained_frequencies(dim, base):
            turns = native * theta / (2 * math.pi)
            kept = (turns - self.slow) / max(self.fast - self.slow, 1e-6)
            kept = min(max(kept, 0.0), 1.0)
            made.append((1 - kept) * theta / scale + kept * theta)
        return made

    def length(self, scale: float) -> float:
        """``0.1 ln s + 1``."""
        return 0.1 * math.log(scale) + 1
