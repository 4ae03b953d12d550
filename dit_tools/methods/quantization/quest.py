"""QuEST: four bits for weights and activations, the layers that matter fine-tuned together."""

from __future__ import annotations

from dit_tools.core.registry import method, param
from dit_tools.methods.quantization import ActivationStats, Array, Scheme, group_of
from dit_tools.nn.packed_layout import Layout


@method(
    paper="arXiv:2402.03666",
    year=2024,
    title="QuEST: Low-bit Diffusion Model Quantization via Efficient Selective Finetuning",
    authors="Wang, Shang, Yuan, Wu, Yan, Yan",
)
class Quest(Scheme):
    """Integers for weights and activations (W4A4), selected layers fine-tuned on the whole network.

    Queries, keys and values of self-attention and the MLPs are trained so that the network with
    everything quantized predicts what the full one does on calls of the sampling process;
    gradients pass through rounding as if it were not there. Unlike in the paper activations have
    a scale per token as they come, which takes the place of scales learned per time, and its first
    stage, which trains the layers that embed times, is left out: here those have eight bits and
    full activations, and lose nothing that training could bring back. The weights that are kept
    are those that serve prompts outside of the training best: with few prompts often the untrained.
    """

    bits: int = param(4, "bits per weight", ge=2, le=8)
    act: str = param("4", "bits of activations", choices=("4", "6", "8"))
    group: int = param(64, "weights that share a scale below 8 bits; 0 is a row", ge=0, le=4096)
    epochs: int = param(4, "passes over the calls; 0 rounds to the nearest", ge=0, le=1000)
    calls: int = param(48, "number of network calls, spread over the sampling steps", ge=1, le=10000)
    rate: float = param(0.004, "learning rate, as a share of a layer's step", gt=0.0, le=1.0)

    @property
    def calibration(self) -> str:
        """What the model is fed when it is used."""
        return "trajectory" if self.epochs else ""

    @property
    def tuning(self) -> bool:
        """Always, unless it is turned off."""
        return self.epochs > 0

    def layout(self, rows: int, columns: int) -> Layout:
        """Integers, activations."""
        group = 0 if self.bits == 8 else group_of(self.group, columns)
        return Layout(rows, columns, "int", self.bits, group, act=int(self.act))

    def pack(self, weight: Array, layout: Layout, seen: ActivationStats | None) -> dict[str, Array]:
        """Nearest codes of the tuned weight at the scale that it was tuned for."""
        from dit_tools.nn.quantizers import finish_rounding, nearest, scales

        if seen is None or seen.weight is None:
            found = scales(weight, layout, 80 if self.bits < 8 else 0)
        else:
            weight, found = seen.weight, {"scale": seen.scale}
        return finish_rounding(nearest(weight, found, layout), found, layout)
