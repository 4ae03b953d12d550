"""Q-Diffusion: rounding learned on inputs from all times of the sampling process."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import ActivationStats, Array, Scheme, group_of
from dit_tools.nn.packed_layout import Layout


@method(
    paper="arXiv:2302.04304",
    year=2023,
    title="Q-Diffusion: Quantizing Diffusion Models",
    authors="Li, Liu, Lian, Yang, Dong, Kang, Zhang, Keutzer",
)
class QDiffusion(Scheme):
    """Integers whose rounding is learned (AdaRound) on inputs of the whole sampling process.

    Scales come from the paper's search over eighty ranges. Unlike in the paper, layers are
    reconstructed one by one, not in blocks; transformers without long skips have no shortcuts to
    split; activations are quantized per token as they come (``act``) instead of with learned
    scales.
    """

    bits: int = param(4, "bits per weight", ge=2, le=8)
    group: int = param(64, "weights that share a scale below 8 bits; 0 is a row", ge=0, le=4096)
    act: str = param("0", "bits of activations; 0 leaves them alone", choices=("0", "4", "6", "8"))
    iterations: int = param(300, "number of optimization steps", ge=1, le=100000)
    inputs: str = param(
        "trajectory",
        "ntdc: cleaner times weigh more (PTQ4DM); random: noise, to compare",
        choices=("trajectory", "ntdc", "random"),
    )

    rowwise = True
    moments = True

    @property
    def calibration(self) -> str:
        """Inputs of the sampling process, or random ones."""
        return self.inputs

    def layout(self, rows: int, columns: int) -> Layout:
        """Integers with a scale per group; one a row at eight bits."""
        group = 0 if self.bits == 8 else group_of(self.group, columns)
        return Layout(rows, columns, "int", self.bits, group, act=int(self.act))

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """Scales by search, then learned codes; nearest codes for a layer that nothing reached."""
        from dit_tools.nn.quantizers import finish_rounding, learn_rounding, nearest, scales

        found = scales(weight, layout, 80)
        if seen is None:
            codes = nearest(weight, found, layout)
        else:
            codes = learn_rounding(weight, found, layout, seen.moments, self.iterations)
        return finish_rounding(codes, found, layout)
