"""Skipping a stack of blocks as a whole and putting a forecast where its output would be.

When a call is skipped, what leaves the last block is a forecast that no other block's output goes
into. So the blocks between hand on what enters them and nothing of them is kept: memory and the
work of a skipped call do not grow with depth. ``_apart`` is for units that skip by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.branch_state import StatePerBranch
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.forecast import Forecast, Tree, map_tree
from dit_tools.core.run import RunState
from dit_tools.methods.caching._policy import Policy
from dit_tools.nn.blocks import around_blocks, entering, image

Correct = Callable[[Tree, tuple[Any, ...], dict[str, Any]], Tree]
"""``correct(forecast, args, kwargs)``: a better forecast; the rest is what the last block gets."""


@dataclass
class BranchState:
    """What is remembered of one tuple of branches, e.g. ``("uncond", "cond")``.

    ``tail`` forecasts the last block's output, or what is added until there: ``relative`` to what
    leaves the ``first`` block, or to what is the ``input`` of the first block. ``timed`` counts in
    times instead of calls, which matters where they are unequal. ``correct`` fixes the forecast.
    """

    policy: Policy
    tail: Forecast
    relative: str = ""  # or "first", "input"
    timed: bool = False
    correct: Correct | None = None
    skipped: int = 0  # in a row


def attach(
    blocks: Sequence[Any],
    run: RunState,
    warmup: int,
    begin: Callable[[], BranchState],
    name: str,
    leading: int | None = None,
) -> AbstractContextManager[None]:
    """Hook the blocks. The first ``warmup`` calls (>= 1) and the last step are always computed.

    ``begin`` makes the state for branches that are new or were not asked for at the call before;
    those warm up again. Only the first ``leading`` blocks are ever skipped, if given.
    Raises UnsupportedError when there are no blocks.
    """
    check_blocks(blocks, name)
    skipping = Skipping(blocks[:leading], run, warmup, begin)
    return around_blocks(blocks, skipping.block, "dit_cache")


def check_blocks(blocks: Sequence[Any], name: str) -> None:
    """Raise UnsupportedError when a network offers no blocks to ``--cache NAME``."""
    if not blocks:
        raise UnsupportedError(f"--cache {name}: this network offers no blocks to skip", "use --backend torch")


class Skipping:
    """The state of one run. Its ``block`` stands in for the forward of every block."""

    def __init__(self, blocks: Sequence[Any], run: RunState, warmup: int, begin: Callable[[], BranchState]):
        self._blocks, self._run = blocks, run
        self._last = len(blocks) - 1
        self._streams = StatePerBranch(run, warmup, begin)
        self._stream = begin()
        self._free = self._skip = False  # may this call skip; does it
        self._head = 0  # blocks computed in a call that skips
        self._entered: Tree = None  # block 1 in this call
        self._left: Tree = None

    def block(self, position: int, compute: Callable[[], Tree], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
        """The output of a block: computed, what enters it, or after the last one the forecast.

        A skipped call comes here for every block too, so the way through is short.
        """
        if 0 < position < self._last:
            return entering(self._blocks[position], args, kwargs) if self._skip else compute()
        if position > self._last:
            self._run.count["blocks computed"] += 1
            return compute()
        output = self._first(compute, args, kwargs) if position == 0 else None
        if position < self._last:
            return output
        if self._skip:
            return self._forecast(args, kwargs)
        return self._learn(compute() if position else output)

    def _first(self, compute: Callable[[], Tree], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
        """Block 1, before which and after which it is decided whether the call skips."""
        entered = entering(self._blocks[0], args, kwargs)
        self._open(entered)
        self._head = 0 if self._skip else 1
        output = entered if self._skip else compute()
        self._entered, self._left = entered, output
        self._skip = self._skip or self._may_skip_rest()
        return output

    def _open(self, entered: Tree) -> None:
        """Find the branches' state and ask for a decision before block 1."""
        self._stream, self._free = self._streams.open()
        seen = image(self._blocks[0], entered)
        policy, skipped = self._stream.policy, self._stream.skipped
        self._skip = self._free and policy.before(self._run.call, skipped, seen)

    def _may_skip_rest(self) -> bool:
        if not self._free or not self._last:
            return False
        stream, (entered, left) = self._stream, self._images()
        return stream.policy.after(self._run.call, entered, left, stream.skipped)

    def _images(self) -> tuple[Array, Array]:
        first = self._blocks[0]
        return image(first, self._entered), image(first, self._left)

    def _at(self) -> float:
        return -self._run.t if self._stream.timed else self._run.call

    def _base(self) -> Tree:
        return self._entered if self._stream.relative == "input" else self._left

    def _forecast(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
        stream = self._stream
        stream.skipped += 1
        self._run.count["blocks computed"] += self._head
        self._run.count["blocks skipped"] += self._last + 1 - self._head
        output = stream.tail.at(self._at())
        if stream.relative:
            output = map_tree(lambda start, added: start + added, self._base(), output)
        self._entered = self._left = None
        return output if stream.correct is None else stream.correct(output, args, kwargs)

    def _learn(self, output: Tree) -> Tree:
        stream, learnt = self._stream, output
        stream.skipped = 0
        self._run.count["blocks computed"] += self._last + 1
        stream.policy.learn(self._run.call, *self._images())
        if stream.relative:
            learnt = map_tree(lambda end, start: end - start, output, self._base())
        stream.tail.learn(self._at(), learnt)
        self._entered = self._left = None
        return output
