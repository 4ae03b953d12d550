"""Round to nearest: integers with a scale per group, without calibration."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import ActivationStats, Array, Scheme, group_of
from dit_tools.nn.packed_layout import Layout


@method()
class Rtn(Scheme):
    """Integers of 2 to 8 bits, each weight rounded to the nearest.

    Eight bits have a scale per output channel, fewer bits one per ``group`` input channels of it.
    With ``act`` activations are quantized too; at eight and eight bits the product is made in whole
    numbers on a CPU.
    """

    bits: int = param(8, "bits per weight", ge=2, le=8)
    group: int = param(64, "weights that share a scale below 8 bits; 0 is a row", ge=0, le=4096)
    zero: bool = param(False, "zero point per group: better for asymmetric weights, larger files")
    act: str = param("0", "bits of activations, a scale per token", choices=("0", "4", "6", "8"))
    clip: str = param("none", "mse: clip the range where that lowers the error", choices=("none", "mse"))

    rowwise = True

    def layout(self, rows: int, columns: int) -> Layout:
        """One scale a row at eight bits."""
        group = 0 if self.bits == 8 else group_of(self.group, columns)
        return Layout(rows, columns, "int", self.bits, group, self.zero, int(self.act))

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """Scales, then nearest codes."""
        from dit_tools.nn.quantizers import finish_rounding, nearest, scales

        found = scales(weight, layout, 80 if self.clip == "mse" else 0)
        return finish_rounding(nearest(weight, found, layout), found, layout)
