"""ViDiT-Q: activations quantized per token as they come, channels balanced beforehand."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.nn.layouts import Layout
from dit_tools.weights.quantize._base import Array, Scheme, Seen, group_of

ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""What a layer chooses from, beside no balance at all."""


@method(
    paper="arXiv:2406.02540", year=2024,
    title="ViDiT-Q: Efficient and Accurate Quantization of Diffusion Transformers for Image and "
    "Video Generation",
    authors="Zhao, Fang, Huang, Liu, Wan, Soedarmadji, Li, Lin, Dai, Yan, Yang, Ning, Wang",
)  # fmt: skip
class ViditQ(Scheme):
    """Integers for weights and activations (W8A8, W4A8), each token with a scale of its own.

    Channel c of the input is divided by max|x_c|^alpha / max|w_c|^(1 - alpha) and the weight
    multiplied by it, so that few large channels cost the others no precision. The authors' alpha is
    0.3 everywhere; where a model has no large channels it moves weights' imbalance into activations
    and does harm. By default each layer therefore takes the alpha of least error on calibration
    tokens, or no balance. One range of times, as the authors have it for pictures. adaLN layers and
    those outside of the blocks keep full activations. At eight bits the product is made in whole
    numbers on a CPU. Bits per layer are chosen with --max-loss.
    """

    bits: int = param(8, "bits per weight", ge=2, le=8)
    act: str = param("8", "bits of activations; 0 leaves them alone", choices=("0", "4", "6", "8"))
    alpha: float | None = param(
        None, "how much of the imbalance weights take over; none: the best a layer", ge=0.0, le=1.0
    )
    group: int = param(64, "weights that share a scale below 8 bits; 0 is a row", ge=0, le=4096)

    @property
    def calibration(self) -> str:
        """What the model is fed when it is used."""
        return "trajectory"

    def layout(self, rows: int, columns: int) -> Layout:
        """Integers, activations, balance."""
        group = 0 if self.bits == 8 else group_of(self.group, columns)
        return Layout(rows, columns, "int", self.bits, group, act=int(self.act), balance=True)

    def pack(self, weight: Array, layout: Layout, seen: Seen | None) -> dict[str, Array]:
        """Balance by peaks, or none; a layer that nothing reached is not balanced."""
        import torch

        tried = [torch.ones(layout.columns)]
        if seen is not None:
            theirs, ours = weight.abs().amax(0).clamp_min(1e-5), seen.peak.clamp_min(1e-5)
            alphas = ALPHAS if self.alpha is None else (self.alpha,)
            found = [theirs ** (1 - alpha) / ours**alpha for alpha in alphas]
            # A common factor changes nothing.
            found = [balance / balance.log().mean().exp() for balance in found]
            tried = found if self.alpha is not None else [*tried, *found]
        made = [self._packed(weight, layout, balance) for balance in tried]
        if seen is None or len(made) == 1:
            return made[0]
        from dit_tools.nn.packed import output

        exact = seen.sample @ weight.T
        errors = [float((output(seen.sample, one, layout) - exact).square().sum()) for one in made]
        return made[errors.index(min(errors))]

    def _packed(self, weight: Array, layout: Layout, balance: Array) -> dict[str, Array]:
        from dit_tools.nn.rounding import finished, nearest, scales

        stored = balance.clamp(2.0**-14, 65504.0).half()
        moved = weight / stored.float()
        found = scales(moved, layout, 80 if self.bits < 8 else 0)
        return {**finished(nearest(moved, found, layout), found, layout), "balance": stored}
