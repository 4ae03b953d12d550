"""ViDiT-Q: activations quantized per token as they come, channels balanced beforehand."""

from __future__ import annotations

from dataclasses import replace

from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import ActivationStats, Array, Scheme, by_rows, group_of, row_blocks
from dit_tools.nn.packed_layout import Layout

ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""What a layer chooses from, next to no balance at all."""
ENOUGH = 0.9
"""Share of the error without balance that must be undercut."""


@method(
    paper="arXiv:2406.02540",
    year=2024,
    title="ViDiT-Q: Efficient and Accurate Quantization of Diffusion Transformers for Image and Video Generation",
    authors="Zhao, Fang, Huang, Liu, Wan, Soedarmadji, Li, Lin, Dai, Yan, Yang, Ning, Wang",
)
class ViditQ(Scheme):
    """Integers for weights and activations (W8A8, W4A8), each token with a scale of its own.

    Channel c of the input is divided by max|x_c|^alpha / max|w_c|^(1 - alpha) and the weight
    multiplied by it, so that few large channels cost the others no precision. The authors' alpha is
    0.3 everywhere; where a model has no large channels it moves weights' imbalance into activations
    and does harm, and peaks of one prompt say little of another where single channels fire, as
    behind the GELU. By default each layer therefore takes the alpha, found on every second
    calibration prompt, of least error on the other prompts, or no balance. One range of times, as
    the authors have it for images. adaLN layers and those outside of the blocks keep full
    activations. At eight bits the product is made in whole numbers on a CPU. Bits per layer are
    chosen with --max-loss.
    """

    bits: int = param(8, "bits per weight", ge=2, le=8)
    act: str = param("8", "bits of activations; 0 leaves them alone", choices=("0", "4", "6", "8"))
    alpha: float | None = param(
        None, "share of the channel imbalance that the weights take over; none: the best for each layer", ge=0.0, le=1.0
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

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """Balance by peaks, or none; a layer that nothing reached is not balanced."""
        import torch

        even = torch.ones(layout.columns)
        if seen is None:
            return self._packed(weight, layout, even)
        if self.alpha is not None:
            return self._packed(weight, layout, _balance(weight, seen.peak, self.alpha))
        tokens, peak = (seen.sample, seen.peak) if seen.others is None else (seen.others, seen.half)
        # Channels that were never large count as average ones: a prompt may come that wakes them.
        peak = peak.clamp_min(float(peak.mean()))
        tried = [even, *(_balance(weight, peak, alpha) for alpha in ALPHAS)]
        errors = [self._error(weight, layout, balance, tokens) for balance in tried]
        # On four prompts a small gain is chance as often as not.
        errors[0] *= ENOUGH
        return self._packed(weight, layout, tried[errors.index(min(errors))])

    def _error(self, weight: Array, layout: Layout, balance: Array, tokens: Array) -> float:
        """Squared error of the layer's output on tokens (n, columns)."""
        from dit_tools.nn.packed import output

        total = 0.0
        for rows in row_blocks(layout):
            some = weight[rows]
            shape = replace(layout, rows=len(some))
            made = {**self._rows(some / _stored(balance), shape), "balance": _stored(balance)}
            total += float((output(tokens, made, shape) - tokens @ some.T).square().sum())
        return total

    def _packed(self, weight: Array, layout: Layout, balance: Array) -> dict[str, Array]:
        stored = _stored(balance)
        made = by_rows(weight, layout, lambda some, shape: self._rows(some / stored, shape))
        return {**made, "balance": stored}

    def _rows(self, moved: Array, layout: Layout) -> dict[str, Array]:
        """Rows of a weight that is divided by the balance."""
        from dit_tools.nn.quantizers import finish_rounding, nearest, scales

        found = scales(moved, layout, 80 if self.bits < 8 else 0)
        return finish_rounding(nearest(moved, found, layout), found, layout)


def _stored(balance: Array) -> Array:
    """As the file holds it: weights are divided by that very number."""
    return balance.clamp(2.0**-14, 65504.0).half()


def _balance(weight: Array, peak: Array, alpha: float) -> Array:
    """Factors of the input's channels; a common factor changes nothing, so their mean is 1."""
    largest = weight.amax(0).maximum(-weight.amin(0))  # of |weight|, without a copy of it
    theirs, ours = largest.clamp_min(1e-5), peak.clamp_min(1e-5)
    balance = theirs ** (1 - alpha) / ours**alpha
    return balance / balance.log().mean().exp()
