"""NTK-aware positions, per axis."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.methods.highres._positions import Frequencies, Positions, ntk


@method(
    paper="arXiv:2410.13925",
    year=2024,
    title="FiTv2: Scalable and Improved Flexible Vision Transformer for Diffusion Model",
    authors="Wang, Lu, Huang, et al.",
    needs={"blocks", "torch"},
    identity={"scale": 1.0},
)
class Ntk(Positions):
    """Stretch low frequencies of the positions and keep high ones: VisionNTK.

    Per axis, with ``s`` tokens over those of the model's own size: base ``b`` becomes
    ``b s^(d / (d - 2))`` for ``d`` channels, so that the highest frequency is unchanged and the
    lowest is divided by ``s``. Made for rotary positions (Flux, Qwen-Image, Lumina2, Z-Image). The
    sine tables of PixArt and SD3 take the same frequencies, which no paper has tried: PixArt's own
    table is interpolated already when nothing is said, SD3's goes on beyond what was trained. Sana
    has no positions and is refused.
    """

    scale: float | None = param(None, "s; none: by the size; 1 = exact", ge=1, le=64)
    proportional: bool = param(False, "scale attention by sqrt(log N / log N_native)")

    def frequencies(self, dim: int, base: float, scale: float, native: int, t: float) -> Frequencies:
        """``(b s^(d / (d - 2)))^(-2 j / d)``."""
        return ntk(dim, base, scale)
