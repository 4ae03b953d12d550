"""Running a network's blocks on some of its image tokens.

Before the first block the tokens of a call are taken out of the image stream, after the last one
they are put back, zeros elsewhere: embedding and output layers, which know the grid, see all of it.
What goes along with tokens (rotary positions, masks) is narrowed for every block.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from dit_tools.core.errors import UnsupportedError
from dit_tools.core.run import RunState
from dit_tools.nn.attention_product import LAST, Product, attending
from dit_tools.nn.hooks import around_forward

STREAMS = {
    "BasicTransformerBlock": "hidden_states",
    "JointTransformerBlock": "hidden_states",
    "FluxTransformerBlock": "hidden_states",
    "FluxSingleTransformerBlock": "hidden_states",
    "QwenImageTransformerBlock": "hidden_states",
    "Lumina2TransformerBlock": "hidden_states",
    "ZImageTransformerBlock": "x",
}
"""Block class -> name of its argument that holds the image's tokens."""
JOINED = {"Lumina2TransformerBlock": "attention_mask", "ZImageTransformerBlock": "attn_mask"}
"""Blocks whose stream holds text too -> name of the mask over it."""

Choose = Callable[[], Tensor | None]
"""``choose() -> (b, n)`` image tokens of b pictures in rising order, or None for all of them."""


class Memory:
    """Keys and values of every attention module for one tuple of branches."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}


class Narrowing:
    """One run's hooks. ``choose`` is asked before every network call.

    ``memory()``: where keys and values of tokens that are left out are remembered, so that the
    others can attend to them; None: they are not attended to.
    """

    def __init__(self, blocks: Sequence[Any], run: RunState, choose: Choose, option: str):
        self._blocks, self._run, self._choose, self._option = blocks, run, choose, option
        self.memory: Callable[[], Memory | None] = lambda: None
        self._chosen: Tensor | None = None  # (rows, n), of the current call
        self._kept: Tensor | None = None  # (rows, s), of a joined stream
        self._whole: Tensor | None = None  # the image's stream as it entered

    @contextmanager
    def attached(self, remember: bool) -> Iterator[None]:
        """Hook the blocks, and their attention where keys and values are to be remembered.

        Raises UnsupportedError for blocks that cannot run on some of their tokens.
        """
        for block in self._blocks:
            kind = type(block.module).__name__
            if kind not in STREAMS:
                message = f"{self._option}: blocks of class {kind} need the whole grid of tokens"
                raise UnsupportedError(message, "leave it out")
        if not self._blocks:
            message = f"{self._option}: this network offers no blocks"
            raise UnsupportedError(message, "use --backend torch")
        with ExitStack() as stack:
            if remember:
                stack.enter_context(attending(self._blocks, self._count, self._product, self._option, "dit_keys"))
            modules = [block.module for block in self._blocks]
            stack.enter_context(around_forward(modules, self._block, "dit_tokens"))
            yield

    @property
    def total(self) -> int:
        """All image tokens."""
        return self._run.grid[0] * self._run.grid[1]

    def _count(self) -> int:
        return self.total if self._chosen is None else self._chosen.shape[1]

    def _block(self, position: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        block = self._blocks[position]
        named = _named(block.module, args, kwargs)
        stream = STREAMS[type(block.module).__name__]
        if position == 0:
            self._open(block.module, named, stream)
        if self._chosen is None:
            return compute()
        output = compute(**self._narrowed(block.module, named, position == 0))
        return self._close(block, output) if position == len(self._blocks) - 1 else output

    def _open(self, module: Any, named: dict[str, Any], stream: str) -> None:
        """Ask for this call's tokens, and find their places in the stream."""
        hidden, chosen = named[stream], self._choose()
        rows, count = hidden.shape[0], self.total
        computed = count if chosen is None else chosen.shape[1]
        self._run.count["tokens computed"] += computed
        self._run.count["tokens skipped"] += count - computed
        self._whole = self._kept = self._chosen = None
        if chosen is None:
            return
        chosen = chosen.to(hidden.device)
        self._chosen = chosen.repeat(rows // chosen.shape[0], 1)
        self._whole, self._kept = hidden, self._chosen
        kind = type(module).__name__
        if kind in JOINED:
            start = _start(kind, hidden.shape[1], named.get(JOINED[kind]), count)
            self._kept = _among(self._chosen, start, count, hidden.shape[1])

    def _narrowed(self, module: Any, named: dict[str, Any], first: bool) -> dict[str, Any]:
        """The arguments of a block for the chosen tokens alone."""
        kind, kept = type(module).__name__, self._kept
        assert kept is not None
        made = dict(named)
        if first:
            made[STREAMS[kind]] = taken(named[STREAMS[kind]], kept)
        if kind in JOINED:
            mask = named.get(JOINED[kind])
            made[JOINED[kind]] = None if mask is None else mask.gather(1, kept)
            rotary = "image_rotary_emb" if "image_rotary_emb" in named else "freqs_cis"
            made[rotary] = taken(named[rotary], kept)
        elif kind == "QwenImageTransformerBlock":
            image, text = named["image_rotary_emb"]
            made["image_rotary_emb"] = (_PerRow(image[kept]), text)
        elif kind in LAST:
            length = named["encoder_hidden_states"].shape[1]
            both = _behind(kept, length)
            made["image_rotary_emb"] = tuple(_PerRow(x[both]) for x in named["image_rotary_emb"])
        return made

    def _close(self, block: Any, output: Any) -> Any:
        """The output of the last block with its image stream at full length."""
        hidden = output if block.output is None else output[block.output]
        assert self._whole is not None and self._kept is not None
        places = self._kept[:, :, None].expand(-1, -1, hidden.shape[2])
        full = hidden.new_zeros(self._whole.shape).scatter(1, places, hidden)
        if block.output is None:
            return full
        return tuple(full if i == block.output else part for i, part in enumerate(output))

    def _product(self, site: int, product: Product) -> Tensor:
        """Attention to all keys: those of left-out tokens are the last that were computed."""
        memory = self.memory()
        if memory is None:
            return product.attend()
        if self._chosen is None:
            memory.kept[site] = product.k, product.v, product.mask
            return product.attend()
        k, v, mask = memory.kept[site]
        places = self._places(product, k.shape[2])[:, None, :, None]
        k, v = (
            old.scatter(2, places.expand(-1, old.shape[1], -1, old.shape[3]), new)
            for old, new in ((k, product.k), (v, product.v))
        )
        memory.kept[site] = k, v, mask
        return product.plain(product.q, k, v, mask)

    def _places(self, product: Product, length: int) -> Tensor:
        """Where the tokens of a narrowed attention lie among all ``length``, (rows, s)."""
        assert self._chosen is not None and self._kept is not None
        if self._kept.shape != self._chosen.shape:  # text is in the stream, and chosen along
            return self._kept
        text = product.k.shape[2] - self._chosen.shape[1]
        start = product.start if isinstance(product.start, int) else 0
        if start:  # text first
            return _behind(self._chosen, text)
        rest = torch.arange(self.total, length, device=self._chosen.device)
        return torch.cat([self._chosen, rest.expand(self._chosen.shape[0], -1)], 1)


class _PerRow:
    """Rotary factors (rows, s, d) where diffusers expects one table (s, d) for all rows.

    It indexes or unsqueezes the table to broadcast over rows and heads, which are there already.
    """

    def __init__(self, table: Tensor):
        self._table = table[:, :, None]  # (rows, s, 1, d)

    def __getitem__(self, index: Any) -> Tensor:
        return self._table

    def unsqueeze(self, dim: int) -> Tensor:
        return self._table


def taken(x: Tensor, places: Tensor) -> Tensor:
    """Tokens (rows, s, d) at ``places`` (rows, n)."""
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))


def _behind(places: Tensor, length: int) -> Tensor:
    """Places in a sequence with ``length`` text tokens in front, which are all kept."""
    text = torch.arange(length, device=places.device).expand(places.shape[0], -1)
    return torch.cat([text, places + length], 1)


def _start(kind: str, length: int, mask: Tensor | None, count: int) -> int | Tensor:
    if kind == "ZImageTransformerBlock":
        return 0
    return length - count if mask is None else mask.sum(1) - count


def _among(chosen: Tensor, start: int | Tensor, count: int, length: int) -> Tensor:
    """Places of chosen image tokens and of everything else in a joined stream, rising."""
    rows = chosen.shape[0]
    places = torch.arange(length, device=chosen.device).expand(rows, -1)
    first = torch.as_tensor(start, device=chosen.device).expand(rows)[:, None]
    keep = (places < first) | (places >= first + count)
    keep = keep.scatter(1, chosen + first, True)
    wanted = length - count + chosen.shape[1]
    return (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, :wanted]


def _named(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a block by name."""
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    return {name: value for name, value in bound.arguments.items() if name != "self"}
