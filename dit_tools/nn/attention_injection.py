"""Controls of attention for editing: what a batch's target rows take over from its source rows.

A batch holds, for every branch of the guidance, one source row and one target row behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dit_tools.core.blocks import CROSS, Block
from dit_tools.core.run import RunState
from dit_tools.nn.attention_control import AttentionCall, replace_text_maps, text_maps


@dataclass
class Maps:
    """Attention to words, averaged over heads, layers and calls.

    ``rows`` says of which rows of the batch which text positions are watched, as (row, positions);
    ``of(i)`` gives the i-th map (image tokens,), its largest value 1. What image tokens of the
    first of these rows attend to among themselves is summed up in ``within`` (tokens, tokens).
    """

    rows: Sequence[tuple[int, Sequence[int]]]
    totals: dict[int, Tensor] = field(default_factory=dict)
    within: Tensor | None = None

    def add(self, call: AttentionCall, probabilities: Tensor) -> None:
        """Take in the maps of a call."""
        maps = text_maps(call, probabilities)
        for i, (row, words) in enumerate(self.rows):
            if words:
                seen = maps[row, :, :, list(words)].sum(-1).mean(0)
                self.totals[i] = self.totals.get(i, 0.0) + seen

    def of(self, i: int, spread: int = 0) -> Tensor | None:
        """The i-th map, None when nothing was seen.

        ``spread`` times it is passed on along the attention of image tokens among themselves, from
        a thing's telling parts to all of it.
        """
        seen = self.totals.get(i)
        if seen is None:
            return None
        within = self.within
        if within is not None:
            for _ in range(spread):
                seen = within @ seen
        return seen / seen.max().clamp_min(1e-12)

    def watch(self, call: AttentionCall) -> Tensor:
        """A control that only looks on."""
        maps = call.probabilities()
        if call.text.stop > call.text.start:
            self.add(call, maps)
        if call.kind != CROSS:
            within = maps[self.rows[0][0], :, call.image, call.image].mean(0)
            within = within / within.sum(-1, keepdim=True)
            self.within = within if self.within is None else self.within + within
        return call.run()


@dataclass
class PromptToPrompt:
    """Text maps and image maps of the source for the target, by the words that both share.

    ``pairs``: (source position, target position, weight); ``new``: positions that only the target
    has, whose attention is multiplied by ``boost``. Text maps are replaced at times above
    ``cross``, image maps above ``structure``; only where the prompt is seen, not without it.
    """

    run: RunState
    pairs: Sequence[tuple[int, int, float]]
    new: Sequence[int]
    cross: float
    structure: float
    boost: float = 1.0
    maps: Maps | None = None

    def __call__(self, call: AttentionCall) -> Tensor:
        """The output, target rows controlled."""
        output = call.run()
        for b, name in enumerate(self.run.branches):
            if name == "cond":
                pair = slice(2 * b, 2 * b + 2)
                output = torch.cat([output[: pair.start], self._pair(call, pair, output[pair]), output[pair.stop :]])
        return output

    def _pair(self, call: AttentionCall, pair: slice, output: Tensor) -> Tensor:
        own = _rows(call, pair)
        if self.run.t > self.structure and call.kind != CROSS:
            own = own.having(q=_shared(own.q, call.image), k=_shared(own.k, call.image))
            output = own.run()
        if call.text.stop == call.text.start:
            return output
        words = self.run.t > self.cross
        if not words and self.boost == 1 and self.maps is None:
            return output
        maps = own.probabilities()
        if self.maps is not None:
            self.maps.add(own, maps)
        if not words and self.boost == 1:
            return output
        text = text_maps(own, maps)
        made = self._taken(text[:1], text[1:]) if words else text[1:]
        factors = torch.ones(made.shape[-1], dtype=made.dtype, device=made.device)
        factors[list(self.new)] = self.boost
        made = torch.cat([text[:1], made * factors])
        return own.apply(replace_text_maps(own, maps, made))

    def _taken(self, source: Tensor, target: Tensor) -> Tensor:
        """The target's text maps with those of the source where words belong together."""
        length = source.shape[-1]
        matrix = torch.zeros(length, length, dtype=source.dtype, device=source.device)
        for i, j, weight in self.pairs:
            if max(i, j) < length:  # what fills prompts up may not be seen
                matrix[i, j] = weight
        taken = (matrix.sum(0) > 0).to(source.dtype)
        return taken * (source @ matrix) + (1 - taken) * target


@dataclass
class Appearance:
    """The target asks with its own queries, the image's keys and values are the source's.

    At times up to ``start``, in blocks from the share ``depth`` of all on, in every branch.
    """

    run: RunState
    start: float
    depth: float

    def __call__(self, call: AttentionCall) -> Tensor:
        """The output, target rows controlled."""
        if call.kind == CROSS or not self.active(call.index, call.count):
            return call.run()
        return call.having(k=_shared(call.k, call.image), v=_shared(call.v, call.image)).run()

    def active(self, index: int, count: int) -> bool:
        """Whether a block shares now."""
        return self.run.t <= self.start and index >= round(self.depth * count)


@contextmanager
def linear_appearance(blocks: Sequence[Block], chosen: Appearance) -> Iterator[None]:
    """``Appearance`` for blocks of linear self-attention, by their projections to keys and values."""
    with ExitStack() as stack:
        for block in blocks:
            linear = [a.attribute for a in block.spec.attention if not a.softmax and a.kind != CROSS]

            def share(module: Any, args: Any, output: Tensor, index: int = block.index) -> Any:
                taken = output.clone()
                taken[1::2] = output[::2]
                return taken if chosen.active(index, len(blocks)) else output

            for attention in (getattr(block.module, name) for name in linear):
                for projection in (attention.to_k, attention.to_v):
                    stack.callback(projection.register_forward_hook(share).remove)
        yield


def _shared(x: Tensor, image: slice) -> Tensor:
    """(B, heads, N, d) whose odd rows have the image tokens of the rows before them."""
    made = x.clone()
    made[1::2, :, image] = x[::2, :, image]
    return made


def _rows(call: AttentionCall, rows: slice) -> AttentionCall:
    """The call of some rows alone."""
    mask = call.mask
    if mask is not None and mask.ndim == 4 and len(mask) == len(call.q):
        mask = mask[rows]
    return call.having(q=call.q[rows], k=call.k[rows], v=call.v[rows], mask=mask)
