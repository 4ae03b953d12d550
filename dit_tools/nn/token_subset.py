"""Running a network's blocks on some of its image tokens.

Before the first block the tokens of a call are taken out of the image stream, after the last one
they are put back, zeros elsewhere: embedding and output layers, which know the grid, see all of it.
What goes along with tokens (rotary positions, masks) is narrowed for every block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from dit_tools.core.blocks import FIRST, IMAGE_AND_TEXT, LAST, PER_ROW, TEXT_FIRST, Block, BlockSpec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.run import RunState
from dit_tools.nn.attention_control import AttentionCall, control_attention
from dit_tools.nn.blocks import named_arguments
from dit_tools.nn.hooks import around_forward

Choose = Callable[[], Tensor | None]
"""``choose() -> (b, n)`` image tokens of b images in rising order, or None for all of them."""


class Memory:
    """Keys and values of every attention module for one tuple of branches."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor, Tensor | None]] = {}


class TokenSubset:
    """One run's hooks. ``choose`` is asked before every network call.

    ``memory()``: where keys and values of tokens that are left out are remembered, so that the
    others can attend to them; None: they are not attended to.
    """

    def __init__(self, blocks: Sequence[Block], run: RunState, choose: Choose, option: str):
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
            if not block.spec.subset:
                kind = type(block.module).__name__
                message = f"{self._option}: blocks of class {kind} need the whole grid of tokens"
                raise UnsupportedError(message, "leave it out")
        if not self._blocks:
            message = f"{self._option}: this network offers no blocks"
            raise UnsupportedError(message, "use --backend torch")
        with ExitStack() as stack:
            if remember:
                held = control_attention(self._blocks, self._count, self._attend, self._option, name="dit_keys")
                stack.enter_context(held)
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
        named = named_arguments(block.module, args, kwargs)
        if position == 0:
            self._open(block.spec, named)
        if self._chosen is None:
            return compute()
        output = compute(**self._narrowed(block.spec, named, position == 0))
        return self._close(block, output) if position == len(self._blocks) - 1 else output

    def _open(self, spec: BlockSpec, named: dict[str, Any]) -> None:
        """Ask for this call's tokens, and find their places in the stream."""
        hidden, chosen = named[spec.stream], self._choose()
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
        if spec.joined:
            start = _start(spec, hidden.shape[1], named.get(spec.mask), count)
            self._kept = _among(self._chosen, start, count, hidden.shape[1])

    def _narrowed(self, spec: BlockSpec, named: dict[str, Any], first: bool) -> dict[str, Any]:
        """The arguments of a block for the chosen tokens alone."""
        kept, made = self._kept, dict(named)
        assert kept is not None
        if first:
            made[spec.stream] = take_tokens(named[spec.stream], kept)
        for argument, layout in spec.per_token:
            if named.get(argument) is not None:
                length = 0 if spec.joined or layout != TEXT_FIRST else named[spec.text].shape[1]
                made[argument] = _narrow(layout, named[argument], kept, length)
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

    def _attend(self, call: AttentionCall) -> Tensor:
        """Attention to all keys: those of left-out tokens are the last that were computed."""
        memory = self.memory()
        if memory is None:
            return call.run()
        if self._chosen is None:
            memory.kept[call.site] = call.k, call.v, call.key_mask
            return call.run()
        k, v, mask = memory.kept[call.site]
        places = self._places(call, k.shape[2])[:, None, :, None]
        k, v = (
            old.scatter(2, places.expand(-1, old.shape[1], -1, old.shape[3]), new)
            for old, new in ((k, call.k), (v, call.v))
        )
        memory.kept[call.site] = k, v, mask
        return call.product(call.q, k, v, mask)

    def _places(self, call: AttentionCall, length: int) -> Tensor:
        """Where the tokens of a narrowed attention lie among all ``length``, (rows, s)."""
        assert self._chosen is not None and self._kept is not None
        if self._kept.shape != self._chosen.shape:  # text is in the stream, and chosen along
            return self._kept
        text = call.k.shape[2] - self._chosen.shape[1]
        start = call.start if isinstance(call.start, int) else 0
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


def take_tokens(x: Tensor, places: Tensor) -> Tensor:
    """Tokens (rows, S, d), or a mask (rows, S), at ``places`` (rows, n)."""
    if x.ndim == 2:
        return x.gather(1, places)
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[2]))


def _narrow(layout: str, value: Any, kept: Tensor, text: int) -> Any:
    """An argument that goes along with tokens, for those at ``kept``; ``text`` tokens are in front."""
    if layout == PER_ROW:
        return take_tokens(value, kept)
    if layout == IMAGE_AND_TEXT:
        image, words = value
        return _PerRow(image[kept]), words
    both = _behind(kept, text)
    return tuple(_PerRow(table[both]) for table in value)


def _behind(places: Tensor, length: int) -> Tensor:
    """Places in a sequence with ``length`` text tokens in front, which are all kept."""
    text = torch.arange(length, device=places.device).expand(places.shape[0], -1)
    return torch.cat([text, places + length], 1)


def _start(spec: BlockSpec, length: int, mask: Tensor | None, count: int) -> int | Tensor:
    """The first image token in a stream of ``length`` tokens that holds text too."""
    if spec.joined == FIRST:
        return 0
    return length - count if mask is None or spec.joined == LAST else mask.sum(1) - count


def _among(chosen: Tensor, start: int | Tensor, count: int, length: int) -> Tensor:
    """Places of chosen image tokens and of everything else in a joined stream, rising."""
    rows = chosen.shape[0]
    places = torch.arange(length, device=chosen.device).expand(rows, -1)
    first = torch.as_tensor(start, device=chosen.device).expand(rows)[:, None]
    keep = (places < first) | (places >= first + count)
    keep = keep.scatter(1, chosen + first, True)
    wanted = length - count + chosen.shape[1]
    return (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, :wanted]
