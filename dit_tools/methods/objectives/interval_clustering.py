"""Interval clustering: groups of times are tasks of their own, weighted by uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dit_tools.core.paths import Flow, Path, log_snr
from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import NetworkInfo, Objective, Term, TrainingStep

STEPS = 200  # grid on which intervals are found


@method(
    paper="arXiv:2306.00354",
    title="Addressing Negative Transfer in Diffusion Models",
    year=2023,
    authors="Go et al.",
    identity={"clusters": 1},
)
class IntervalClustering(Objective):
    """Cut time into intervals of like tasks, and weigh their losses by learned uncertainty.

    Intervals minimize the distance to their centre (Sec. 4.1), measured in time or in log-SNR.
    Losses are combined by Kendall's uncertainty weighting (Sec. 4.2), the cheapest of the paper's
    three ways. The scale of the loss is that of the plain one at the start.
    """

    clusters: int = param(5, "number of intervals; 1 is off", ge=1, le=50)
    by: str = param("logsnr", "what is alike in an interval", choices=("time", "logsnr"))

    def begin(self, network: NetworkInfo | None) -> Term:
        """A term with one learned weight an interval."""
        return _Tasks(self, network.path if network else Flow())


class _Tasks(Term):
    module: Any

    def __init__(self, chosen: IntervalClustering, path: Path):
        from dit_tools.nn.uncertainty import Uncertainty

        self.hooks = chosen.clusters > 1
        times = [(i + 0.5) / STEPS for i in range(STEPS)]
        values = times if chosen.by == "time" else [2 * log_snr(path, t) for t in times]
        self.starts = [start / STEPS for start in intervals(values, chosen.clusters)]
        if self.hooks:
            self.module = Uncertainty(chosen.clusters)

    def reduce(self, error: Any, step: TrainingStep) -> Any:
        if not self.hooks:
            return None
        import torch

        inner = torch.tensor(self.starts[1:], device=step.t.device)
        task = torch.bucketize(step.t, inner, right=True)
        each = error.flatten(1).mean(dim=1)
        members = torch.nn.functional.one_hot(task, len(self.starts)).to(each)
        counts = members.sum(0)
        losses = (members * each[:, None]).sum(0) / counts.clamp(min=1)
        return self.module(losses, counts / len(each))


def intervals(values: Sequence[float], count: int) -> list[int]:
    """Starts of ``count`` contiguous intervals of falling or rising ``values``.

    They minimize the sum of distances to each interval's middle value, by dynamic programming in
    O(n^2 count) with prefix sums.
    """
    n = len(values)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)

    def cost(start: int, end: int) -> float:  # values[start:end], monotone: the middle is a median
        middle = (start + end) // 2
        low, high = sums[middle] - sums[start], sums[end] - sums[middle]
        odd = (end - start) % 2
        return abs(high - low - odd * values[middle])

    best = [cost(0, end) if end else 0.0 for end in range(n + 1)]
    cuts: list[list[int]] = []
    for _ in range(count - 1):
        made, cut = [math.inf] * (n + 1), [0] * (n + 1)
        for end in range(1, n + 1):
            for start in range(1, end):
                value = best[start] + cost(start, end)
                if value < made[end]:
                    made[end], cut[end] = value, start
        best = made
        cuts.append(cut)
    starts, end = [], n
    for cut in reversed(cuts):
        end = cut[end]
        starts.append(end)
    return [0, *reversed(starts)]
