"""What passes the blocks of a network (``core.blocks.Block``), in PyTorch and in graphs alike.

Torch is imported only where modules of PyTorch are hooked.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.blocks import CROSS, Block

Tree = Any
"""An array, None, or a tuple of these, as a block gives it."""
Around = Callable[[int, Callable[..., Tree], tuple[Any, ...], dict[str, Any]], Tree]
"""``around(position, compute, args, kwargs)`` stands in for the forward of a block."""


def around_blocks(chain: Sequence[Block], around: Around, name: str) -> AbstractContextManager[None]:
    """Inside the context every call of a block gives ``around(position, compute, args, kwargs)``.

    As ``hooks.around_forward``, for blocks. A network in graphs, whose pieces have
    a context ``hooked``, is asked for its first and its last block only.
    """
    found = [block.module for block in chain]
    if hasattr(found[0], "hooked"):
        return _around_pieces(found, around)
    from dit_tools.nn.hooks import around_forward

    return around_forward(found, around, name)


@contextmanager
def _around_pieces(modules: Sequence[Any], around: Around) -> Iterator[None]:
    with ExitStack() as stack:
        for position in sorted({0, len(modules) - 1}):
            stack.enter_context(modules[position].hooked(partial(around, position)))
        yield


def named_arguments(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a module's forward by name."""
    bound = _signature(type(module)).bind(module, *args, **kwargs)
    return {name: value for name, value in bound.arguments.items() if name != "self"}


@functools.cache
def _signature(kind: type[Any]) -> inspect.Signature:
    return inspect.signature(kind.forward)


def entering(block: Block, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
    """What enters a block, in the form in which it leaves: (h), (enc, h) or (h, enc)."""
    given = named_arguments(block.module, args, kwargs) if args else kwargs
    hidden = given[block.spec.stream]
    if block.output is None:
        return hidden
    text = given.get(block.spec.text)
    return (hidden, text) if block.output == 0 else (text, hidden)


def image(block: Block, tree: Tree) -> Array:
    """The image stream of what enters or leaves a block."""
    return tree if block.output is None else tree[block.output]


def modules(blocks: Sequence[Block]) -> list[tuple[str, Any]]:
    """Names and modules of attention and MLP of all blocks, in the order in which the blocks hold them."""
    return [
        (f"{block.name}.{name}", module)
        for block in blocks
        for name, module in getattr(block.module, "named_children", tuple)()  # graphs have none
        if name in block.spec.mlp or any(name == a.attribute for a in block.spec.attention)
    ]


def self_attention(block: Block) -> Any:
    """The block's attention over its image with an output projection of its own, or None."""
    for attention in block.spec.attention:
        module = getattr(block.module, attention.attribute, None)
        if attention.kind != CROSS and hasattr(module, "to_v"):
            return module if getattr(module, "to_out", None) is not None else None
    return None
