"""Positions that change with time: interpolated while there is noise, NTK for the details."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.highres._positions import Frequencies, Positions, interpolate_frequencies, trained_frequencies


@method(
    paper="arXiv:2406.18583",
    year=2024,
    title="Lumina-Next: Making Lumina-T2X Stronger and Faster with Next-DiT",
    authors="Zhuo, Du, Xiao, et al.",
    needs={"blocks", "torch"},
    identity={"scale": 1.0},
)
class TimeAware(Positions):
    """Interpolated positions up to the watershed, a larger base after it; sharper attention.

    With ``S = sqrt(N / N_native)`` for both axes: while ``1 - t < watershed`` positions are divided
    by S, for the layout of the whole; then the base becomes ``b S``, for details (the form of
    diffusers' Lumina pipeline, whose default watershed of 1 interpolates always; ``b S^(d/(d-2))``
    is what ``ntk`` does). Attention is multiplied by ``sqrt(log N / log N_native)``. Caches around
    it forecast over the change; a solver of several calls a step sees it within a step. Where it
    applies: as ``ntk``.
    """

    timed = True

    scale: float | None = param(None, "S; none: by the size; 1 = exact", ge=1, le=64)
    watershed: float = param(0.3, "1 - t at which interpolation ends; 1 = never", ge=0, le=1)
    proportional: bool = param(True, "scale attention by sqrt(log N / log N_native)")

    def scales(self, run: RunState) -> tuple[float, float]:
        """S, S."""
        if self.scale is not None:
            return self.scale, self.scale
        (rows, columns), (high, wide) = run.grid, run.native
        both = max((rows * columns / (high * wide)) ** 0.5, 1.0)
        return both, both

    def frequencies(self, dim: int, base: float, scale: float, native: int, t: float) -> Frequencies:
        """``theta / S``, later ``(b S)^(-2 j / d)``."""
        if 1 - t < self.watershed:
            return interpolate_frequencies(dim, base, scale)
        return trained_frequencies(dim, base * scale)
