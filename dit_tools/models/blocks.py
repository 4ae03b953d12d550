"""A flat view of a transformer's blocks, for methods that hook them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STACKS = ("transformer_blocks", "single_transformer_blocks", "layers", "blocks")
"""Attribute names of the main block stacks, in the order in which they run."""


@dataclass(frozen=True)
class Block:
    """One block: its module, its place, and which element of its output is the image stream.

    ``output`` is the index of the hidden state in a tuple output, or None when the block returns
    the hidden state alone.
    """

    index: int
    name: str
    module: Any
    output: int | None


def blocks(transformer: Any) -> list[Block]:
    """The main blocks of a diffusers transformer in running order.

    Refiners (Lumina2's ``noise_refiner``, ``context_refiner``) are not listed: they are cheap and
    run before the image and text streams meet.
    """
    found: list[Block] = []
    for stack in STACKS:
        for i, module in enumerate(getattr(transformer, stack, None) or ()):
            found.append(Block(len(found), f"{stack}.{i}", module, _output_index(module)))
    return found


def _output_index(module: Any) -> int | None:
    return 1 if type(module).__name__ in TUPLE_BLOCKS else None


TUPLE_BLOCKS = (
    "JointTransformerBlock",
    "FluxTransformerBlock",
    "FluxSingleTransformerBlock",
    "QwenImageTransformerBlock",
)
"""Block classes that return (encoder_hidden_states, hidden_states)."""
