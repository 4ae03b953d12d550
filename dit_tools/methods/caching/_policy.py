"""When a network call may be skipped: at fixed intervals, or while something keeps its word.

A policy lives as long as one run of one set of branches. ``_stack`` asks it ``before`` block 1 (may
everything be skipped?) and ``after`` it (may the rest be skipped?), and lets it ``learn`` from
every full call; ``_apart`` asks before each unit. Warm-up, the last step and cold starts are the
business of ``_streams``, not a policy's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from dit_tools.core.arrays import Array
from dit_tools.core.forecast import Forecast, relative_error

log = logging.getLogger(__name__)


class Policy(Protocol):
    """The questions that are asked. ``skipped`` counts the calls skipped in a row so far."""

    def before(self, call: int, skipped: int, entered: Array) -> bool:
        """Whether all may be skipped, block 1 too, which ``entered`` enters (B, N, D)."""
        ...

    def after(self, call: int, entered: Array, left: Array, skipped: int) -> bool:
        """Whether all blocks but the first may be skipped, which made ``left`` of ``entered``."""
        ...

    def learn(self, call: int, entered: Array, left: Array) -> None:
        """Block 1 made ``left`` of ``entered``, the image streams (B, N, D), at a full call.

        For a unit that skips by itself ``left`` is what is forecast of it.
        """
        ...


class _Ahead:
    """A policy that decides before block 1, and has nothing to learn unless it says so."""

    def after(self, call: int, entered: Array, left: Array, skipped: int) -> bool:
        """Never: it is decided before."""
        return False

    def learn(self, call: int, entered: Array, left: Array) -> None:
        """Nothing to learn."""


@dataclass(frozen=True)
class Interval(_Ahead):
    """One full call, then ``interval - 1`` skipped ones."""

    interval: int

    def before(self, call: int, skipped: int, entered: Array) -> bool:
        """True until ``interval - 1`` calls are skipped."""
        return skipped < self.interval - 1


@dataclass(frozen=True)
class Listed(_Ahead):
    """Full calls at listed numbers, counted from 0 as the run does; the rest is skipped."""

    full: frozenset[int]

    def before(self, call: int, skipped: int, entered: Array) -> bool:
        """Whether the call is not listed."""
        return call not in self.full


@dataclass
class Gate:
    """Skip while block 1 is forecast with a relative error below ``threshold``.

    The error is one number over the whole call: all images of the batch, all its branches.
    ``residual`` looks at what block 1 adds, not at what leaves it. ``against_forecast`` divides by
    the size of the forecast, not of the truth. ``max_skips`` of 0 sets no limit.
    """

    threshold: float
    max_skips: int
    head: Forecast
    residual: bool
    against_forecast: bool = False
    measured: tuple[int, Array] | None = None  # what block 1 did, and at which call

    def before(self, call: int, skipped: int, entered: Array) -> bool:
        """Never: block 1 must be seen first."""
        return False

    def after(self, call: int, entered: Array, left: Array, skipped: int) -> bool:
        """Whether the error is below the threshold; a NaN is not."""
        if self.max_skips and skipped >= self.max_skips:
            return False
        truth, guess = self._measure(entered, left), self.head.at(call)
        learnt = call, truth
        if self.against_forecast:
            truth, guess = guess, truth
        error = relative_error(guess, truth)
        log.debug("call %d: relative error of block 1 is %.5f", call, error)
        skip = error < self.threshold
        self.measured = None if skip else learnt  # a full call comes back with it
        return skip

    def learn(self, call: int, entered: Array, left: Array) -> None:
        """Keep what block 1 did."""
        known, self.measured = self.measured, None
        seen = known[1] if known and known[0] == call else self._measure(entered, left)
        self.head.learn(call, seen)

    def _measure(self, entered: Array, left: Array) -> Array:
        return left - entered if self.residual else left


@dataclass
class Budget(_Ahead):
    """Skip while the errors expected of the calls skipped in a row add up to less than a threshold.

    A subclass says what a call adds (``cost``). ``max_skips`` of 0 sets no limit.
    """

    threshold: float
    max_skips: int
    spent: float = 0.0

    def cost(self, call: int, entered: Array) -> float:
        """The error that skipping this call would add; NaN and infinity forbid it."""
        raise NotImplementedError

    def before(self, call: int, skipped: int, entered: Array) -> bool:
        """Whether the budget holds with this call."""
        self.spent += self.cost(call, entered)
        log.debug("call %d: %.5f of %.5f spent", call, self.spent, self.threshold)
        return self.spent < self.threshold and (not self.max_skips or skipped < self.max_skips)

    def learn(self, call: int, entered: Array, left: Array) -> None:
        """A full call makes up for everything."""
        self.spent = 0.0
