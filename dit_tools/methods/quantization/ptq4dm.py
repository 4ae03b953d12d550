"""PTQ4DM: one scale for a layer's activations, calibrated on skewed times of sampling."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import ActivationStats, Array, Scheme, by_rows, group_of
from dit_tools.nn.packed_layout import Layout


@method(
    paper="arXiv:2211.15736",
    year=2023,
    title="Post-training Quantization on Diffusion Models",
    authors="Shang, Yuan, Xie, Wu, Yan",
)
class Ptq4dm(Scheme):
    """Integers with a scale per output channel, and one scale for each layer's activations.

    The scale of a layer's activations does not depend on the call, so that products cost no search
    for a peak. It is the one of least error among eighty on tokens of the calibration, whose times
    follow a skewed normal distribution (``inputs=ntdc``): more of the cleaner steps. Unlike in the
    paper activations are symmetric around zero, and adaLN layers keep full activations.
    """

    bits: int = param(8, "bits per weight", ge=2, le=8)
    act: str = param("8", "bits of activations", choices=("4", "6", "8"))
    group: int = param(64, "weights that share a scale below 8 bits; 0 is a row", ge=0, le=4096)
    inputs: str = param("ntdc", "times of calibration", choices=("ntdc", "trajectory", "random"))

    @property
    def calibration(self) -> str:
        """Times of the sampling process by a skewed distribution, or others to compare."""
        return self.inputs

    def layout(self, rows: int, columns: int) -> Layout:
        """Integers and static activations."""
        group = 0 if self.bits == 8 else group_of(self.group, columns)
        return Layout(rows, columns, "int", self.bits, group, act=int(self.act), static=True)

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """Scales of weights and activations by search, nearest codes."""
        import torch

        from dit_tools.nn.quantizers import finish_rounding, input_scale, nearest, scales

        def rows(some: Array, shape: Layout) -> dict[str, Array]:
            found = scales(some, shape, 80)
            return finish_rounding(nearest(some, found, shape), found, shape)

        made = by_rows(weight, layout, rows)
        if seen is None:  # never called: any scale will do
            return {**made, "input_scale": torch.ones(1, dtype=torch.float16)}
        return {**made, "input_scale": input_scale(seen.sample, seen.peak, weight, layout.act)}
