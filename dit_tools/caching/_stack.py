"""Skipping a stack of blocks as a whole and putting a forecast where its output would be.

When a call is skipped, what leaves the last block is a forecast that no other block's output goes
into. So the blocks between hand on what enters them and nothing of them is kept: memory and the
work of a skipped call do not grow with depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from dit_tools.caching._forecast import Forecast, Tree, each
from dit_tools.caching._policy import Policy
from dit_tools.core.arrays import Array
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.run import Run


@dataclass
class Stream:
    """What is remembered of one tuple of branches, e.g. ``("uncond", "cond")``.

    ``tail`` forecasts the last block's output, or what is added until there: ``relative`` to what
    leaves the ``first`` block, or to what is the ``input`` of the first block. ``timed`` counts in
    times instead of calls, which matters where they are unequal.
    """

    policy: Policy
    tail: Forecast
    relative: str = ""  # or "first", "input"
    timed: bool = False
    calls: int = 0
    skipped: int = 0  # in a row
    latest: int = -2  # the run's call at which the stream was last used


def attach(
    blocks: Sequence[Any],
    run: Run,
    warmup: int,
    begin: Callable[[], Stream],
    name: str,
    leading: int | None = None,
) -> AbstractContextManager[None]:
    """Hook the blocks. The first ``warmup`` calls (>= 1) and the last step are always computed.

    ``begin`` makes the state for branches that are new or were not asked for at the call before;
    those warm up again. Only the first ``leading`` blocks are ever skipped, if given.
    Raises UnsupportedError when there are no blocks.
    """
    if not blocks:
        raise UnsupportedError(
            f"--cache {name}: this network offers no blocks to skip", "use --backend torch"
        )
    from dit_tools.nn.hooks import around_forward

    skipping = Skipping(blocks[:leading], run, warmup, begin)
    return around_forward([block.module for block in blocks], skipping.block, "dit_cache")


def entering(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
    """What enters a block, in the form in which it leaves: (h), (enc, h) or (h, enc)."""
    hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    if block.output is None:
        return hidden
    text = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
    return (hidden, text) if block.output == 0 else (text, hidden)


class Skipping:
    """The state of one run. Its ``block`` stands in for the forward of every block."""

    def __init__(self, blocks: Sequence[Any], run: Run, warmup: int, begin: Callable[[], Stream]):
        self._blocks, self._run, self._warmup, self._begin = blocks, run, warmup, begin
        self._streams: dict[tuple[str, ...], Stream] = {}
        self._stream = begin()
        self._free = self._skip = False  # may this call skip; does it
        self._entered: Tree = None  # block 1 in this call
        self._left: Tree = None

    def block(
        self,
        position: int,
        compute: Callable[[], Tree],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Tree:
        """The output of a block: computed, what enters it, or after the last one the forecast."""
        if position >= len(self._blocks):
            self._run.count["blocks computed"] += 1
            return compute()
        entered = entering(self._blocks[position], args, kwargs)
        if position == 0:
            self._open()
        output = entered if self._skip else compute()
        self._run.count["blocks skipped" if self._skip else "blocks computed"] += 1
        if position == 0:
            self._entered, self._left = entered, output
            self._skip = self._skip or self._may_skip_rest()
        return self._close(output) if position == len(self._blocks) - 1 else output

    def _open(self) -> None:
        """Find the branches' state and ask for a decision before block 1."""
        stream = self._streams.get(self._run.branches)
        if stream is None or stream.latest != self._run.call - 1:
            stream = self._streams[self._run.branches] = self._begin()
        stream.latest = self._run.call
        stream.calls += 1
        self._stream, self._free = stream, stream.calls > self._warmup and not self._last_step()
        self._skip = self._free and stream.policy.before(self._run.call, stream.skipped)

    def _last_step(self) -> bool:
        # calls_expected is only right for solvers of one evaluation a step; times are for all.
        run = self._run
        return run.t <= run.times[-2] or run.call == run.calls_expected - 1

    def _may_skip_rest(self) -> bool:
        if not self._free or len(self._blocks) == 1:
            return False
        stream, (entered, left) = self._stream, self._images()
        return stream.policy.after(self._run.call, entered, left, stream.skipped)

    def _images(self) -> tuple[Array, Array]:
        index = self._blocks[0].output
        if index is None:
            return self._entered, self._left
        return self._entered[index], self._left[index]

    def _close(self, output: Tree) -> Tree:
        """Learn from the call, or make its output."""
        stream, run = self._stream, self._run
        at = -run.t if stream.timed else run.call
        base = self._entered if stream.relative == "input" else self._left
        if self._skip:
            stream.skipped += 1
            output = stream.tail.at(at)
            if stream.relative:
                output = each(lambda start, added: start + added, base, output)
        else:
            stream.skipped = 0
            stream.policy.learn(run.call, *self._images())
            if stream.relative:
                stream.tail.learn(at, each(lambda end, start: end - start, output, base))
            else:
                stream.tail.learn(at, output)
        self._entered = self._left = None
        return output
