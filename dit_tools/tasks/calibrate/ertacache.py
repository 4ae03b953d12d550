"""Which calls can be skipped, and a line and times that fix that, for ``--cache ertacache``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dit_tools.core.arrays import Array
from dit_tools.core.branch_state import StatePerBranch
from dit_tools.core.forecast import Forecast
from dit_tools.core.run import RunState
from dit_tools.methods.caching.ertacache import LEVELS
from dit_tools.models.calibration import Calibration
from dit_tools.tasks.calibrate.calibration_run import CalibrationRun, join_conditions

SHORTEST = 0.1  # factor of a step's length
Truth = dict[tuple[int, tuple[str, ...]], float]
"""Call and branches -> mean absolute value of the output of the run without skips."""


def calibrate(session: CalibrationRun) -> dict[str, Any]:
    """Tables over thresholds (L) and calls (T).

    ``threshold`` (L), ``skipped`` (L, T), ``slope.BRANCHES`` and ``offset.BRANCHES`` (L, T),
    ``correct_call`` (L, T + 1): the times. Lines and corrected times are kept where they bring the
    final latents nearer to those of the run without skips, else they are zero and the plan's times.
    """
    import numpy as np

    truth: Truth = {}
    plain, run = session.plain(wrap=lambda network, run: _Watched(network, run, truth))
    found = []
    for done, threshold in enumerate(LEVELS):
        session.tell(done, len(LEVELS))
        found.append(_simulate(session, threshold, truth))
    calls, branches = run.calls_expected, {join_conditions(names) for _, names in truth}
    made: dict[str, Any] = {
        "threshold": np.array(LEVELS),
        "skipped": np.array([[call in one.skipped for call in range(calls)] for one in found]),
        "corrected": np.array([run.times] * len(found), float),
    }
    for name in branches:
        lines = [[one.lines.get((call, name), (0.0, 0.0)) for call in range(calls)] for one in found]
        made[f"slope.{name}"], made[f"offset.{name}"] = np.moveaxis(np.array(lines), -1, 0)
    _settle(session, made, found, plain)
    session.tell(len(LEVELS), len(LEVELS))
    return made


class _Watched:
    """The network; the sizes of its outputs go to ``truth``."""

    def __init__(self, network: Any, run: RunState, truth: Truth):
        self._network, self._run, self._truth = network, run, truth

    def __call__(self, **inputs: Any) -> Array:
        output = self._network(**inputs)
        self._truth[self._run.call, self._run.branches] = float(abs(output).mean())
        return output

    def blocks(self) -> list[Any]:
        return self._network.blocks()


@dataclass
class Found:
    """What the simulation at one threshold found.

    ``lines``: call and branches -> K and B; ``shares``: call -> phi of every set of branches.
    """

    skipped: set[int] = field(default_factory=set)
    full: set[int] = field(default_factory=set)
    lines: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)
    shares: dict[int, list[float]] = field(default_factory=dict)


class _Simulated:
    """A network that computes everything and gives rectified forecasts where these are near."""

    def __init__(self, network: Any, run: RunState, order: int, threshold: float, truth: Truth):
        self._network, self._run, self._threshold, self._truth = network, run, threshold, truth
        self._streams = StatePerBranch(run, 1, lambda: Forecast(order))
        self._before: dict[tuple[str, ...], Array] = {}
        self.found = Found()

    def __call__(self, **inputs: Any) -> Array:
        output, (call, names) = self._network(**inputs), (self._run.call, self._run.branches)
        forecast, free = self._streams.open()
        before, self._before[names] = self._before.get(names), output
        if free and self._skips(forecast, output):
            return self._rectified(forecast.at(call), output, before)
        forecast.learn(call, output)
        return output

    def blocks(self) -> list[Any]:
        return self._network.blocks()

    def _skips(self, forecast: Forecast, output: Array) -> bool:
        """Whether this call is skipped; all branches of a call go with the first."""
        call, found = self._run.call, self.found
        if call not in found.skipped | found.full:
            miss = float(abs(forecast.at(call) - output).mean())
            size = self._truth.get((call, self._run.branches), 0.0)
            near = miss < self._threshold * size
            (found.skipped if near else found.full).add(call)
        return call in found.skipped

    def _rectified(self, guess: Array, output: Array, before: Array) -> Array:
        call, error = self._run.call, guess - output
        mean_guess, mean_error = float(guess.mean()), float(error.mean())
        centred = guess - mean_guess
        spread = float((centred * centred).mean())
        slope = float((centred * (error - mean_error)).mean()) / spread if spread else 0.0
        offset = mean_error - slope * mean_guess
        self.found.lines[call, join_conditions(self._run.branches)] = slope, offset
        move = float(abs(output - before).mean())
        share = 1.0 - float(abs(error).mean()) / move if move else 0.0
        self.found.shares.setdefault(call, []).append(min(max(share, 0.0), 1.0))
        return guess * (1.0 - slope) - offset


def _simulate(session: CalibrationRun, threshold: float, truth: Truth) -> Found:
    kept: list[_Simulated] = []

    def wrap(network: Any, run: RunState) -> _Simulated:
        kept.append(_Simulated(network, run, session.plan.cache.order, threshold, truth))
        return kept[0]

    session.plain(wrap=wrap)
    return kept[0].found


def correct_call(times: tuple[float, ...], shares: dict[int, float]) -> tuple[float, ...]:
    """Times whose steps at the calls of ``shares`` are shortened by these factors.

    What is left is spread over the steps that follow, in proportion to their lengths. No step gets
    shorter than a tenth, for solvers divide by their lengths.
    """
    made = [times[0]]
    for call in range(len(times) - 2):
        stretch = made[-1] / times[call] if times[call] else 1.0
        step = (times[call] - times[call + 1]) * stretch * max(shares.get(call, 1.0), SHORTEST)
        made.append(made[-1] - step)
    return (*made, times[-1])


def _settle(session: CalibrationRun, made: dict[str, Any], found: list[Found], plain: Array) -> None:
    """Keep the lines that help, and put corrected times where they help.

    A line is right for its own call; what it does to the calls that follow must be tried. Solvers
    of several calls a step keep their times.
    """
    times = tuple(made["corrected"][0])
    lines = [name for name in made if name.startswith(("slope.", "offset."))]
    for level, one in enumerate(found):
        if not one.skipped:
            continue
        best = _error(session, made, level, plain, rectify=False, retime=False)
        mended = _error(session, made, level, plain, retime=False)
        if not mended < best:
            for name in lines:
                made[name][level] = 0.0
        if len(made["skipped"][0]) != len(times) - 1:
            continue
        shares = {call: sum(many) / len(many) for call, many in one.shares.items()}
        made["corrected"][level] = correct_call(times, shares)
        if not _error(session, made, level, plain) < min(best, mended):
            made["corrected"][level] = times


def _error(session: CalibrationRun, made: dict[str, Any], level: int, plain: Array, **changes: Any) -> float:
    """Mean square error of the final latents at one threshold."""
    arrays = {name: value.astype("float32") for name, value in made.items()}
    x, _ = session.cached(Calibration({}, arrays), threshold=LEVELS[level], **changes)
    return float(((x - plain) ** 2).mean())
