"""Difficulty curriculum: training starts at high noise and opens lower noise step by step."""

from __future__ import annotations

from typing import Any

from dit_tools.core.registry import method, param
from dit_tools.methods.objectives import NetworkInfo, Objective, Term, TrainingStep


@method(
    paper="arXiv:2403.10348",
    title="Denoising Task Difficulty-based Curriculum for Training Diffusion Models",
    year=2024,
    authors="Kim et al.",
    identity={"clusters": 1},
)
class Curriculum(Objective):
    """Train on the noisiest cluster of times, and add the next one when the loss stops falling.

    Clusters are equal shares of the density of times (for uniform times, equal intervals, Sec. 4).
    All are open at the latest after ``until`` of the training, which then is ordinary.
    """

    clusters: int = param(20, "clusters of times; 1 is off", ge=1, le=1000)
    patience: int = param(200, "steps without a lower mean loss that open the next one", ge=1)
    until: float = param(0.5, "share of the training after which all are open", gt=0, le=1)

    def begin(self, network: NetworkInfo | None) -> Term:
        """A term that remembers the best loss of the open clusters."""
        return _Opening(self)


class _Opening(Term):
    def __init__(self, chosen: Curriculum):
        self.chosen, self.open = chosen, 1
        self.mean, self.best, self.since = 0.0, float("inf"), 0

    def quantiles(self, uniform: Any) -> Any:
        closed = 1 - min(self.open, self.chosen.clusters) / self.chosen.clusters
        return closed + (1 - closed) * uniform if closed else uniform

    def observe(self, loss: float, step: TrainingStep) -> None:
        if self.open >= self.chosen.clusters:
            return
        self.mean = loss if not self.mean else 0.9 * self.mean + 0.1 * loss
        self.since += 1
        if self.mean < self.best:
            self.best, self.since = self.mean, 0
        schedule = 1 + (step.step + 1) / (self.chosen.until * step.steps) * (self.chosen.clusters - 1)
        if self.since >= self.chosen.patience or self.open < int(schedule + 1e-9):
            self.open += 1
            self.mean, self.best, self.since = 0.0, float("inf"), 0

    def state_dict(self) -> dict[str, Any]:
        return {"open": self.open, "mean": self.mean, "best": self.best, "since": self.since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.open, self.since = int(state["open"]), int(state["since"])
        self.mean, self.best = float(state["mean"]), float(state["best"])
