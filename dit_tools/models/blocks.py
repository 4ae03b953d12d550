"""A flat view of a transformer's blocks, for methods that hook them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dit_tools.core.errors import UnsupportedError

STACKS = ("transformer_blocks", "single_transformer_blocks", "layers", "blocks")
"""Attribute names of the main block stacks, in the order in which they run."""

OUTPUTS = {
    "BasicTransformerBlock": None,  # DiT, PixArt
    "SanaTransformerBlock": None,
    "Lumina2TransformerBlock": None,  # text tokens first, then the image's
    "ZImageTransformerBlock": None,  # the image's tokens first, then text
    "JointTransformerBlock": 1,  # SD3: (encoder_hidden_states or None, hidden_states)
    "FluxTransformerBlock": 1,
    "FluxSingleTransformerBlock": 1,
    "QwenImageTransformerBlock": 1,
}
"""Block class -> index of the image stream in its output; None where it returns one tensor."""


@dataclass(frozen=True)
class Block:
    """One block: its module, its place, and which element of its output is the image stream.

    ``output`` is the index of the hidden state in a tuple output, or None when the block returns
    the hidden state alone. Lumina2 and Z-Image keep text and image tokens in one hidden state.
    """

    index: int
    name: str
    module: Any
    output: int | None


def blocks(transformer: Any) -> list[Block]:
    """The main blocks of a diffusers transformer in running order; each runs once a call.

    Refiners (``noise_refiner``, ``context_refiner`` of Lumina2 and Z-Image) are not listed: they
    are cheap and run before the image and text streams meet.
    Raises UnsupportedError for a block class whose output is not known.
    """
    found: list[Block] = []
    for stack in STACKS:
        for i, module in enumerate(getattr(transformer, stack, None) or ()):
            found.append(Block(len(found), f"{stack}.{i}", module, _output_index(module)))
    return found


def _output_index(module: Any) -> int | None:
    name = type(module).__name__
    if name not in OUTPUTS:
        raise UnsupportedError(
            f"blocks of class {name} are not known, so no method can be attached to them",
            "choose --cache none, or a model with an adapter",
        )
    return OUTPUTS[name]
