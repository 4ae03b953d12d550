"""Skipping units one by one, each by its own rule: whole blocks, or attention and MLP in them.

A unit's output is kept at every call that computes it, so memory grows with the number of units.
Between units everything is computed: norms, gates with the current time, residual sums.
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
from dit_tools.methods.caching._per_stack import check_blocks
from dit_tools.methods.caching._policy import Policy
from dit_tools.nn.blocks import entering, image, modules


@dataclass
class Unit:
    """What is remembered of one unit: when it may skip, and the forecast of what it gives."""

    policy: Policy
    forecast: Forecast
    timed: bool = False  # whether the forecast counts in times instead of calls
    skipped: int = 0  # in a row


def attach_blocks(
    blocks: Sequence[Any], run: RunState, warmup: int, begin: Callable[[int], Unit], name: str
) -> AbstractContextManager[None]:
    """Hook the blocks; what each adds to its input is forecast. ``begin(index)`` makes its state.

    Warm-up and the last step are as in ``_stack.attach``. Raises UnsupportedError without blocks.
    """
    check_blocks(blocks, name)
    from dit_tools.nn.hooks import around_forward

    def around(position: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
        entered = entering(blocks[position], args, kwargs)
        seen = image(blocks[position], entered)
        return apart.unit(position, compute, seen, entered)

    def look(position: int, tree: Tree) -> Array:
        return image(blocks[position], tree)

    apart = PerUnit(len(blocks), run, warmup, begin, "blocks", look)
    return around_forward([block.module for block in blocks], around, "dit_cache")


def attach_modules(
    blocks: Sequence[Any], run: RunState, warmup: int, begin: Callable[[int], Unit], name: str
) -> AbstractContextManager[None]:
    """Hook attention and MLP inside the blocks; what each gives before its gate is forecast.

    Raises UnsupportedError without blocks, and for blocks without such modules.
    """
    check_blocks(blocks, name)
    from dit_tools.nn.hooks import around_forward

    found = modules(blocks)
    if not found:
        raise UnsupportedError(
            f"--cache {name}: the blocks have no attention or MLP of a known name", "use --cache taylorseer"
        )

    def around(position: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tree:
        return apart.unit(position, compute, args[0] if args else None, None)

    apart = PerUnit(len(found), run, warmup, begin, "modules")
    return around_forward([module for _, module in found], around, "dit_cache")


class PerUnit:
    """The state of one run over ``count`` units that run once a call, in order.

    ``kind`` names them in the run's counters: ``KIND computed`` and ``KIND skipped``. Policies are
    shown ``look(position, tree)`` of what is learnt, by default the tree itself.
    """

    def __init__(
        self,
        count: int,
        run: RunState,
        warmup: int,
        begin: Callable[[int], Unit],
        kind: str,
        look: Callable[[int, Tree], Array] | None = None,
    ):
        self._run, self._kind, self._look = run, kind, look
        self._streams = StatePerBranch(run, warmup, lambda: [begin(index) for index in range(count)])
        self._units: list[Unit] = []
        self._free = False

    def unit(self, position: int, compute: Callable[[], Tree], seen: Array, base: Tree) -> Tree:
        """A unit's output: computed, or ``base`` plus the forecast of what it adds to that.

        ``seen`` is what its policy looks at. ``base`` of None: the output itself is forecast.
        """
        if position == 0:
            self._units, self._free = self._streams.open()
        unit, call = self._units[position], self._run.call
        at = -self._run.t if unit.timed else call
        skip = self._free and unit.policy.before(call, unit.skipped, seen)
        self._run.count[f"{self._kind} {'skipped' if skip else 'computed'}"] += 1
        if skip:
            unit.skipped += 1
            given = unit.forecast.at(at)
            return given if base is None else map_tree(lambda start, add: start + add, base, given)
        unit.skipped = 0
        output = compute()
        learnt = output if base is None else map_tree(lambda end, start: end - start, output, base)
        unit.policy.learn(call, seen, self._look(position, learnt) if self._look else learnt)
        unit.forecast.learn(at, learnt)
        return output
