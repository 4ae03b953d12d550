"""Rectified flow with uniform times."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method
from dit_tools.methods.objectives import NetworkInfo, Objective, Term


@method(
    paper="arXiv:2209.03003",
    title="Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow",
    year=2022,
    authors="Liu, Gong, Liu",
)
class Uniform(Objective):
    """All times equally often: the baseline that other densities are compared with (Eq. 1)."""

    def begin(self, network: NetworkInfo | None) -> Term:
        """Times are the quantiles."""
        return _Times()


class _Times(Term):
    def times(self, uniform: Any) -> Any:
        return uniform.clamp(1e-4, 1 - 1e-4).float()
