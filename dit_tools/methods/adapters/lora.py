"""LoRA: a low-rank difference of each linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dit_tools.core.blocks import Block
from dit_tools.core.registry import method, param
from dit_tools.methods.adapters import Adapter


@method(
    paper="arXiv:2106.09685", title="LoRA: Low-Rank Adaptation of Large Language Models", year=2021, authors="Hu et al."
)
class Lora(Adapter):
    """Add ``B A`` of a small rank to the weights of the blocks' linear layers, through peft.

    ``A`` is random, ``B`` zero (Sec. 4.1). The file has the names that diffusers gives; the factor
    alpha / rank is folded into ``B``, so that no reader needs to know it.
    """

    rank: int = param(16, "rank of the difference", ge=1, le=1024)
    alpha: float = param(0.0, "alpha / rank scales the difference; 0: alpha = rank", ge=0, le=4096)
    layers: str = param("blocks", "which layers of the blocks", choices=("attention", "blocks"))

    def attach(self, network: Any, blocks: Sequence[Block], seed: int) -> Any:
        """Layers with trainable ``lora_A`` and ``lora_B``."""
        from dit_tools.nn.adapters import PeftLora

        return PeftLora(network, blocks, self.rank, self.alpha or self.rank, self.layers, seed)
