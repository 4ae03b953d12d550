"""HarmoniCa: a learned table says which attention and which MLP is computed at which step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from dit_tools.core.forecast import Forecast
from dit_tools.core.registry import method, param
from dit_tools.core.run import RunState
from dit_tools.methods.caching import Cache, Tunable
from dit_tools.methods.caching._per_module import Unit, attach_modules
from dit_tools.methods.caching._per_stack import check_blocks
from dit_tools.methods.caching._policy import Interval, Listed
from dit_tools.models.calibration import CALIBRATION, table
from dit_tools.nn.blocks import modules


@method(
    paper="arXiv:2410.01723",
    year=2024,
    title="HarmoniCa: Harmonizing Training and Inference for Better Feature Caching in Diffusion "
    "Transformer Acceleration",
    authors="Huang, Wang, Gong, Liu, et al.",
    needs={"blocks"},
    identity={"calibration": "none"},
)
class Harmonica(Cache):
    """Reuse outputs of attention and MLP wherever a trained router says so.

    ``dit calibrate`` trains a number ``rho`` for every call and every attention and MLP, along
    whole sampling runs that use what they cache, so that training meets the errors of use (Huang et
    al. 2024): the loss is the error to the full run's predictions plus ``beta`` times a price of
    what is computed. A module is computed where ``sigmoid(rho) > threshold``, else its last output
    before the gate is reused; norms, gates and residual sums are always computed, so that the time
    saved is less than the share of modules. Differs from the paper in the weights of calls and in
    the form of the price, to learn in tens of trajectories (``calibrating/harmonica.py``).
    ``calibration=even`` is the table that a learned one must beat: everything at every second call.
    The first and the last step are computed in full.
    """

    calibrated_by: ClassVar[tuple[str, ...]] = ("beta",)
    words: ClassVar[frozenset[str]] = frozenset({"none", "even"})
    dial: ClassVar[Tunable] = Tunable("threshold", tuple(round(i / 40, 3) for i in range(41)))

    threshold: float = param(0.5, "compute a module above this; 0 = exact", ge=0, le=1)
    beta: float = param(2.0, "in training: cost of computing all modules, in units of the error of even", ge=0)
    calibration: str = param("auto", CALIBRATION + "; or even, none")

    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[None]:
        """Raises UnsupportedError without blocks, InputError for a table of another size."""
        check_blocks(blocks, self.info.name)
        if self.calibration == "none":
            return nullcontext()
        if run.calibration is None:
            return attach_modules(blocks, run, 1, lambda _: Unit(Interval(2), Forecast(0)), self.info.name)
        shape = (run.calls_expected, len(modules(blocks)))
        rho = table(run.calibration, "rho", shape).tolist()
        full = [
            frozenset(call for call, row in enumerate(rho) if _sigmoid(row[i]) > self.threshold)
            for i in range(shape[1])
        ]
        return attach_modules(blocks, run, 1, lambda i: Unit(Listed(full[i]), Forecast(0)), self.info.name)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))
