"""Forecasting what a block would give, from what it gave at earlier calls: array arithmetic only.

Values are trees: an array, None, or a tuple of these, as blocks return them. numpy and torch alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dit_tools.core.arrays import Array, at_least_float32, convert_like, is_torch

Tree = Any
"""An array, None, or a tuple of trees."""

FORMS = ("taylor", "newton")
VARIABLES = ("step", "time")


def map_tree(function: Callable[..., Any], *trees: Tree) -> Tree:
    """``function`` on the arrays that stand at the same place; None where any tree has None."""
    if any(tree is None for tree in trees):
        return None
    if isinstance(trees[0], tuple):
        return tuple(map_tree(function, *parts) for parts in zip(*trees, strict=True))
    return function(*trees)


def relative_error(guess: Array, truth: Array) -> float:
    """``mean|guess - truth| / mean|truth|`` over everything; NaN when it cannot be told."""
    guess, truth = at_least_float32(guess), at_least_float32(truth)
    off, size = abs(guess - truth).mean(), abs(truth).mean()
    if is_torch(off):
        import torch

        joined: Any = torch.stack((off, size))
        off, size = joined.tolist()  # a device is waited for once
    return float(off) / float(size) if size else math.nan


class Forecast:
    """A polynomial through the values of the last ``order + 1`` computed calls.

    With nodes ``s0 > s1 > ...`` (the computed calls, newest first) and ``k = s - s0``:

    - ``taylor``: ``F(s) = sum_i D_i k^i / i!`` with ``D_0 = F(s0)`` and
      ``D_{i+1} = (D_i - D_i at s1) / (s0 - s1)``, as Liu et al. 2025 (arXiv:2503.06923).
      Exact for straight lines only: on ``a s^2`` with equal gaps ``N`` it misses by ``-a N k``.
    - ``newton``: divided differences with the weights ``prod_{j < i} (s - s_j)``, the polynomial
      that does pass through all nodes. Exact for polynomials up to ``order``, whatever the gaps.

    Fewer than ``order + 1`` calls known means a lower order; order 0 is plain reuse, bit for bit.
    Differences of 16-bit values are kept in float32, for they would drown in rounding.
    """

    def __init__(self, order: int, form: str = "taylor"):
        self._order, self._newton = order, form == "newton"
        self._nodes: tuple[float, ...] = ()
        self._terms: tuple[Tree, ...] = ()

    def learn(self, call: float, value: Tree) -> None:
        """Take in the value computed at ``call``, which must be later than those before.

        A second value at one place, as solvers of two calls a step ask for, starts again.
        """
        if self._nodes and call == self._nodes[0]:
            self._nodes, self._terms = (), ()
        terms = [value]
        for i, older in enumerate(self._terms[: self._order]):
            gap = call - self._nodes[i if self._newton else 0]
            terms.append(map_tree(_slope(gap), terms[i], older))
        self._terms = tuple(terms)
        self._nodes = (call, *self._nodes)[: len(terms)]

    def at(self, call: float) -> Tree:
        """The value expected at ``call``; at least one value must have been learnt."""
        weights = self._weights(call)
        return map_tree(lambda *terms: _weighted(weights, terms), *self._terms)

    def _weights(self, call: float) -> list[float]:
        distance, weights = call - self._nodes[0], [1.0]
        for i in range(1, len(self._terms)):
            factor = call - self._nodes[i - 1] if self._newton else distance / i
            weights.append(weights[-1] * factor)
        return weights


def _slope(gap: float) -> Callable[[Array, Array], Array]:
    return lambda newer, older: (at_least_float32(newer) - at_least_float32(older)) / gap


def _weighted(weights: list[float], terms: tuple[Array, ...]) -> Array:
    if len(terms) == 1:
        return terms[0]
    total = at_least_float32(terms[0])
    for weight, term in zip(weights[1:], terms[1:], strict=True):
        total = total + weight * term
    return convert_like(total, terms[0])
