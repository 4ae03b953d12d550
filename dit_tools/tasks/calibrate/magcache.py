"""How much what all blocks add grows from call to call, for ``--cache magcache``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from dit_tools.core.arrays import at_least_float32
from dit_tools.core.run import RunState
from dit_tools.nn.blocks import around_blocks, entering, image
from dit_tools.tasks.calibrate.calibration_run import CalibrationRun, join_conditions


def calibrate(session: CalibrationRun) -> dict[str, Any]:
    """``ratio.BRANCHES`` (T): mean over tokens of ``|R_k| / |R_k-1|``; 1 at the first call."""
    import numpy as np

    sizes: dict[str, dict[int, Any]] = {}

    def attach(blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        return _watched(blocks, run, sizes)

    _, run = session.plain(attach=attach)
    made = {}
    for name, by_call in sizes.items():
        ratios = np.ones(run.calls_expected)
        for call in range(1, run.calls_expected):
            if call in by_call and call - 1 in by_call:
                ratios[call] = float((by_call[call] / (by_call[call - 1] + 1e-8)).mean())
        made[f"ratio.{name}"] = ratios
    return made


def _watched(blocks: Sequence[Any], run: RunState, sizes: dict[str, dict[int, Any]]) -> AbstractContextManager[None]:
    """Fills ``sizes``: branches -> call -> norm of what is added to every token (B, N)."""
    ends, entered = [blocks[0], blocks[-1]], []

    def around(position: int, compute: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if position == 0:
            entered[:] = [image(ends[0], entering(ends[0], args, kwargs))]
        output = compute()
        if position == len(ends) - 1:
            start, end = entered[0], image(ends[-1], output)
            added = at_least_float32(end[:, -start.shape[1] :]) - at_least_float32(start)
            sizes.setdefault(join_conditions(run.branches), {})[run.call] = (added * added).sum(-1) ** 0.5
        return output

    return around_blocks(ends, around, "dit_calibrate")
