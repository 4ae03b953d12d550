"""Four-bit floating point, with rounding learned on what layers are fed."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import ActivationStats, Array, Scheme, group_of
from dit_tools.nn.packed_layout import Layout


@method(
    paper="arXiv:2408.06995",
    year=2024,
    title="Low-Bitwidth Floating Point Quantization for Efficient High-Quality Diffusion Models",
    authors="Chen, Giannoula, Moshovos",
)
class Fp4(Scheme):
    """Floating point of four bits (E2M1) whose rounding is learned, layer by layer.

    The scale of a group is the one of least error among eighty. Each weight is then rounded up or
    down so that the layer's output suffers least on calibration inputs; with ``iterations`` 0 to
    the nearest. Unlike in the paper the format is always E2M1, scales are per group, and
    activations stay in full precision.
    """

    group: int = param(32, "weights that share a scale; 0 is a row", ge=0, le=4096)
    iterations: int = param(300, "steps of learning; 0 rounds to the nearest", ge=0, le=100000)

    rowwise = True
    moments = True

    @property
    def calibration(self) -> str:
        """What the model is fed when it is used."""
        return "trajectory" if self.iterations else ""

    def layout(self, rows: int, columns: int) -> Layout:
        """E2M1 with a scale per group."""
        return Layout(rows, columns, "fp4", 4, group_of(self.group, columns))

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """Scales, then learned or nearest codes."""
        from dit_tools.nn.quantizers import finish_rounding, learn_rounding, nearest, scales

        found = scales(weight, layout, 80)
        if seen is None:
            codes = nearest(weight, found, layout)
        else:
            codes = learn_rounding(weight, found, layout, seen.moments, self.iterations)
        return finish_rounding(codes, found, layout)
