"""DiffScaler: each linear layer scaled, shifted, and given a narrow path of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dit_tools.core.blocks import Block
from dit_tools.core.registry import method, param
from dit_tools.methods.adapters import Adapter


@method(
    paper="arXiv:2404.09976",
    title="DiffScaler: Enhancing the Generative Prowess of Diffusion Transformers",
    year=2024,
    authors="Nair et al.",
)
class Diffscaler(Adapter):
    """``a * (W x) + b + U relu(V x)`` for every linear layer of the blocks.

    Scale ``a`` and shift ``b`` use what the layer has learned, the bottleneck adds directions of
    its own. Starts with a = 1, b = 0, U = 0. The paper's width, layers and nonlinearity were not
    established: width and layers are parameters here, the nonlinearity is ReLU.
    """

    width: int = param(4, "width of the bottleneck; 0 leaves it out", ge=0, le=1024)
    layers: str = param("blocks", "which layers of the blocks", choices=("attention", "blocks"))

    def attach(self, network: Any, blocks: Sequence[Block], seed: int) -> Any:
        """Hooked linear layers."""
        from dit_tools.nn.adapters import Scaled

        return Scaled(network, blocks, self.width, self.layers, seed)
