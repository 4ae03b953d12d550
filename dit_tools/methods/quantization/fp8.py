"""Eight-bit floating point, E4M3, with a scale per output channel."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import ActivationStats, Array, Scheme, group_of
from dit_tools.nn.packed_layout import Layout


@method()
class Fp8(Scheme):
    """Floating point of eight bits (E4M3), each weight rounded to the nearest.

    Better than int8 where weights have heavy tails, worse where they are normally distributed.
    """

    group: int = param(0, "weights that share a scale; 0 is a row", ge=0, le=4096)

    rowwise = True

    def layout(self, rows: int, columns: int) -> Layout:
        """E4M3 with a scale a row or group."""
        return Layout(rows, columns, "fp8", 8, group_of(self.group, columns))

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """Scales, then nearest codes."""
        from dit_tools.nn.quantizers import finish_rounding, nearest, scales

        found = scales(weight, layout)
        return finish_rounding(nearest(weight, found, layout), found, layout)
