"""Trainable low-rank additions to a network's linear layers, while a context lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dit_tools.nn.weight_changes import LowRank


class TrainableAdditions:
    """Additions ``B A x`` to linear layers; ``on`` says whether they act.

    B starts at zero: at first nothing changes (Hu et al. 2021, arXiv:2106.09685).
    """

    def __init__(self) -> None:
        self.on = True
        self.factors: list[Tensor] = []

    def add(self, layer: nn.Linear, rank: int, generator: torch.Generator) -> Any:
        """Hook one layer; gives the handle that removes the hook."""
        device = layer.weight.device
        down = torch.randn(rank, layer.in_features, generator=generator) / layer.in_features**0.5
        change = LowRank(down.to(device), torch.zeros(layer.out_features, rank, device=device), 1.0)
        change.requires_grad_(True)
        self.factors += [change.down, change.up]

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            if not self.on:
                return output
            return output + change(module, args[0].float()).to(output.dtype)

        return layer.register_forward_hook(hook)


@contextmanager
def low_rank(network: nn.Module, rank: int, seed: int = 0) -> Iterator[TrainableAdditions]:
    """Additions to every linear layer whose name speaks of attention; gone with the context."""
    made, generator = TrainableAdditions(), torch.Generator().manual_seed(seed)
    with ExitStack() as stack:
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Linear) and "attn" in name:
                stack.callback(made.add(layer, rank, generator).remove)
        yield made
