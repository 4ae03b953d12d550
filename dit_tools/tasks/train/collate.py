"""Several images in one call of a transformer of any family.

Families give the arguments of a call at one time. Arguments of images at different times are
joined here: what has a batch of one is concatenated, what is equal for all is passed once. Whether
that is right for a network is tried, not known: positions and lists are batched in many ways.
"""

from __future__ import annotations

from typing import Any

import torch

MAX_PARAMETERS = 300_000_000
"""Parameters up to which images go together; above, one at a time keeps memory small."""
CLOSE = 1e-3  # largest difference of the outputs, relative to their size


class Unequal(ValueError):
    """Arguments that cannot be joined."""


def call(network: Any, inputs: list[dict[str, Any]]) -> torch.Tensor:
    """The raw outputs (B, ...) of one call of a ``TorchNetwork``. Raises Unequal."""
    made = inputs[0] if len(inputs) == 1 else join_arguments(inputs)
    # Not by the call of the network itself: that records gradients only for inputs that ask.
    raw = network.module(**network.prepared(made), return_dict=False)[0]
    return torch.stack(raw) if isinstance(raw, list) else raw


def join_arguments(values: list[Any]) -> Any:
    """One argument for all of these, each of a batch of one. Raises Unequal."""
    first = values[0]
    if isinstance(first, dict):
        return {key: join_arguments([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [item for value in values for item in value]
    if isinstance(first, torch.Tensor):
        if first.ndim and all(value.shape == first.shape for value in values):
            if first.shape[0] == 1:
                return torch.cat(values)
            if all(torch.equal(value, first) for value in values):
                return first
        raise Unequal
    if all(value == first for value in values):
        return first
    raise Unequal


def fits(network: torch.nn.Module) -> bool:
    """Whether the network is small enough for several images at once."""
    return sum(p.numel() for p in network.parameters()) <= MAX_PARAMETERS


def joins(inputs: list[dict[str, Any]]) -> bool:
    """Whether these arguments can be joined: texts of different lengths cannot."""
    try:
        join_arguments(inputs)
    except Unequal:
        return False
    return True


@torch.no_grad()
def agrees(network: Any, inputs: list[dict[str, Any]]) -> bool:
    """Whether one call gives what a call for each gives."""
    try:
        whole = call(network, inputs).float()
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    alone = torch.cat([call(network, [each]).float() for each in inputs])
    if whole.shape != alone.shape:
        return False
    return bool((whole - alone).abs().max() <= CLOSE * alone.abs().max().clamp_min(1e-6))
