"""What passes the blocks of a network, and standing in for them, in PyTorch and in graphs alike.

Blocks are ``models.blocks.Block``; torch is imported only where modules of PyTorch are hooked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from dit_tools.core.arrays import Array

Tree = Any
"""An array, None, or a tuple of these, as a block gives it."""
Around = Callable[[int, Callable[..., Tree], tuple[Any, ...], dict[str, Any]], Tree]
"""``around(position, compute, args, kwargs)`` stands in for the forward of a block."""


def around_blocks(chain: Sequence[Any], around: Around, name: str) -> AbstractContextManager[None]:
    """Inside the context every call of a block gives ``around(position, compute, args, kwargs)``.

    As ``hooks.around_forward``, for ``models.blocks.Block``. A network in graphs, whose pieces have
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


def entering(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
    """What enters a block, in the form in which it leaves: (h), (enc, h) or (h, enc)."""
    hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    if block.output is None:
        return hidden
    text = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
    return (hidden, text) if block.output == 0 else (text, hidden)


def image(block: Any, tree: Tree) -> Array:
    """The image stream of what enters or leaves a block."""
    return tree if block.output is None else tree[block.output]


def modules(blocks: Sequence[Any]) -> list[tuple[str, Any]]:
    """Names and modules of attention and MLP of all blocks, in order, as the families name them."""
    import re

    known = re.compile(r"attn\d?|attention|cross_attn|ff|ff_context|feed_forward|(img|txt|proj)_mlp")
    return [
        (f"{block.name}.{name}", module)
        for block in blocks
        for name, module in getattr(block.module, "named_children", tuple)()  # graphs have none
        if known.fullmatch(name)
    ]
