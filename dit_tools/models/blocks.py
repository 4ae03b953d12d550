"""A flat view of a transformer's blocks, for methods that hook them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dit_tools.core.blocks import Block, BlockSpec
from dit_tools.core.errors import UnsupportedError


def blocks(transformer: Any, stacks: Sequence[str], specs: Mapping[str, BlockSpec]) -> list[Block]:
    """The main blocks of a transformer in running order; each runs once a call.

    ``stacks`` are the attribute names of the block stacks, ``specs`` what is known about each block
    class (``Family.stacks``, ``Family.blocks``). Refiners (``noise_refiner``, ``context_refiner`` of
    Lumina2 and Z-Image) are not listed: they are cheap and run before image and text meet.
    Raises UnsupportedError for a block class without a spec.
    """
    found: list[Block] = []
    for stack in stacks:
        for i, module in enumerate(getattr(transformer, stack, None) or ()):
            name = type(module).__name__
            if name not in specs:
                raise UnsupportedError(
                    f"blocks of class {name} are not known, so no method can be attached to them",
                    "choose --cache none, or a model with an adapter",
                )
            found.append(Block(len(found), f"{stack}.{i}", module, specs[name]))
    return found
