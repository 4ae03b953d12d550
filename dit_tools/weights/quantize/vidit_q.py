"""ViDiT-Q: activations quantized per token as they come, channels balanced beforehand."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.nn.layouts import Layout
from dit_tools.weights.quantize._base import Array, Scheme, Seen, group_of


@method(
    paper="arXiv:2406.02540", year=2024,
    title="ViDiT-Q: Efficient and Accurate Quantization of Diffusion Transformers for Image and "
    "Video Generation",
    authors="Zhao, Fang, Huang, Liu, Wan, Soedarmadji, Li, Lin, Dai, Yan, Yang, Ning, Wang",
)  # fmt: skip
class ViditQ(Scheme):
    """Integers for weights and activations (W8A8, W4A8), each token with a scale of its own.

    Channel c of the input is divided by max|x_c|^alpha / max|w_c|^(1 - alpha) and the weight
    multiplied by it, so that few large channels cost the others no precision. One range of times,
    as the authors have it for pictures. adaLN layers and those outside of the blocks keep full
    activations. At eight bits the product is made in whole numbers on a CPU. Bits per layer are
    chosen with --max-loss.
    """

    bits: int = param(8, "bits per weight", ge=2, le=8)
    act: str = param("8", "bits of activations; 0 leaves them alone", choices=("0", "4", "6", "8"))
    alpha: float = param(0.3, "how much of the imbalance weights take over", ge=0.0, le=1.0)
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
        """Balance by peaks; a layer that nothing reached is not balanced."""
        import torch

        from dit_tools.nn.rounding import finished, nearest, scales

        balance = torch.ones(layout.columns)
        if seen is not None:
            theirs = weight.abs().amax(0).clamp_min(1e-5)
            balance = theirs ** (1 - self.alpha) / seen.peak.clamp_min(1e-5) ** self.alpha
            balance = balance / balance.log().mean().exp()  # a common factor changes nothing
        stored = balance.clamp(2.0**-14, 65504.0).half()
        moved = weight / stored.float()
        found = scales(moved, layout, 80 if self.bits < 8 else 0)
        return {**finished(nearest(moved, found, layout), found, layout), "balance": stored}
