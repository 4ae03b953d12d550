"""DiffFit: biases, norms and one new scale for what each sub-layer gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dit_tools.core.blocks import Block
from dit_tools.core.registry import method, param
from dit_tools.methods.adapters import Adapter


@method(
    paper="arXiv:2304.06648",
    title="DiffFit: Unlocking Transferability of Large Diffusion Models via Simple Parameter-Efficient Fine-Tuning",
    year=2023,
    authors="Xie et al.",
)
class Difffit(Adapter):
    """Train all biases, norms and class embeddings, and a scale on each sub-layer's output.

    ``h + gamma * f(h)`` with ``gamma`` starting at 1 (Sec. 3.3), on every attention and
    feed-forward part. Tables of adaptive normalization (``scale_shift_table``) count as biases. On
    loading everything is merged into the weights, exactly. Wants ten times the learning rate of
    full fine-tuning.
    """

    scales: bool = param(True, "whether there are scales; without, it is BitFit")

    def attach(self, network: Any, blocks: Sequence[Block], seed: int) -> Any:
        """Trainable biases and norms of the network itself, and hooked scales."""
        from dit_tools.nn.adapters import Tuned

        return Tuned(network, blocks, self.scales)
