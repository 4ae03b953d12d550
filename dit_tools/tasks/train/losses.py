"""The objectives of a run together: one place that asks each term in turn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dit_tools.core import spec
from dit_tools.core.errors import UsageError
from dit_tools.methods.objectives import Setting, Term, View
from dit_tools.tasks.train.distributed import Team

ALONE = Team()


def parse(texts: Sequence[str], stage: str) -> list[Any]:
    """The objectives of these specs. Raises UsageError for one of the other stage, or twice."""
    chosen = [spec.parse("objectives", text) for text in texts]
    for i, each in enumerate(chosen):
        name = each.info.name
        if each.stage != stage:
            raise UsageError(f"objective {name}: not for the {stage}", f"put it in [{each.stage}]")
        if name in [other.info.name for other in chosen[:i]]:
            raise UsageError(f"objective {name}: given twice", "give it once")
    return chosen


class Terms:
    """The terms of a run, with what they train and remember."""

    def __init__(self, objectives: Sequence[Any], setting: Setting, seed: int, rate: float, team: Team = ALONE):
        self.names = [each.info.name for each in objectives]
        self.all: list[Term] = [each.begin(setting) for each in objectives]
        self.default: Any = spec.parse("objectives", "logit-normal").begin(None)
        self.seed, self.rate, self.team = seed, rate, team
        self.modules = torch.nn.ModuleList([t.module for t in self.all if t.module is not None])
        self.modules.to(setting.device)
        self.optimizer = (
            torch.optim.AdamW(self.modules.parameters(), rate, weight_decay=0.0) if len(self.modules) else None
        )

    @property
    def hooks(self) -> bool:
        """Whether the step's forward pass is more than the plain one."""
        return any(term.hooks for term in self.all)

    def rng(self, index: int, step: int) -> np.random.Generator:
        """The random numbers of one term in one step, in this process."""
        own = [self.team.rank] * (not self.team.leads)
        return np.random.default_rng([self.seed, step, 1 + index, *own])

    def times(self, uniform: torch.Tensor) -> torch.Tensor:
        """Times (B,) of uniform numbers (B,)."""
        for term in self.all:
            uniform = term.quantiles(uniform)
        found = [t for t in (term.times(uniform) for term in self.all) if t is not None]
        return found[-1] if found else self.default.times(uniform)

    def couple(self, x0: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
        """The noise for each picture."""
        for i, term in enumerate(self.all):  # of the whole batch: the same in every process
            rng = np.random.default_rng([self.seed, step, 1 + i])
            noise = term.couple(x0, noise, rng)
        return noise

    def loss(self, view: View) -> torch.Tensor:
        """The whole loss of a step; without terms, the mean squared error of the velocity."""
        views = [replace(view, rng=self.rng(i, view.step), store={}) for i in range(len(self.all))]
        pairs = list(zip(self.all, views, strict=True))
        with ExitStack() as stack:
            for term, own in pairs:
                stack.enter_context(term.attach(own))
            velocity = view.networks(view.x, view.t, view.ids, view.mask)
        error = (velocity.float() - (view.noise - view.x0)).square()
        reduced = [v for v in (term.reduce(error, own) for term, own in pairs) if v is not None]
        value = reduced[-1] if reduced else error.mean()
        for term, own in pairs:
            more = term.extra(own)
            value = value if more is None else value + more
        return value

    def step(self, factor: float) -> None:
        """Update what terms train beside the network."""
        if self.optimizer is not None:
            self.team.average(self.modules.parameters())
            torch.nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
            self.optimizer.param_groups[0]["lr"] = self.rate * factor
            self.optimizer.step()
            self.optimizer.zero_grad()

    def observe(self, loss: float, view: View) -> None:
        """Tell every term the step's loss."""
        for term in self.all:
            term.observe(loss, view)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; empty without objectives."""
        if not self.all:
            return {}
        return {
            "names": self.names,
            "terms": [term.state_dict() for term in self.all],
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``. Raises ValueError when it is of other objectives."""
        if state.get("names", []) != self.names:
            raise ValueError("other objectives")
        for term, part in zip(self.all, state.get("terms", []), strict=True):
            term.load_state_dict(part)
        if self.all:
            self.modules.load_state_dict(state["modules"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
