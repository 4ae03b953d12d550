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
from dit_tools.core.paths import VP, Path, scales
from dit_tools.core.prediction import Prediction
from dit_tools.methods.objectives import Condition, Denoise, NetworkInfo, Objective, Term, TrainingStep
from dit_tools.tasks.train.training_run import TrainingRun


def parse_objectives(texts: Sequence[str], stage: str) -> list[Any]:
    """The objectives of these specs. Raises UsageError for one of the other stage, or twice."""
    chosen = [spec.parse("objectives", text) for text in texts]
    for i, each in enumerate(chosen):
        name = each.info.name
        if each.stage != stage:
            raise UsageError(f"objective {name}: not for the {stage}", f"put it in [{each.stage}]")
        if name in [other.info.name for other in chosen[:i]]:
            raise UsageError(f"objective {name}: given twice", "give it once")
    return chosen


def plain(
    denoise: Denoise, x0: torch.Tensor, condition: Condition, t: torch.Tensor, noise: torch.Tensor, path: Path
) -> torch.Tensor:
    """The mean squared error of the prediction, of whatever kind it is: training without objectives."""
    alpha, sigma = scales(path, t, x0)
    return error(denoise(alpha * x0 + sigma * noise, t, condition), x0, noise).mean()


def error(prediction: Prediction, x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Squared errors (B, C, ...) of what the network predicts natively."""
    target = Prediction.target(prediction.kind, x0, noise, prediction.path, prediction.t)
    return (prediction.raw - target).square()


class Terms:
    """The terms of a run, with what they train and remember.

    ``network`` may be None where there are no objectives. Raises UnsupportedError for an objective
    that cannot be applied to it.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        network: NetworkInfo | None,
        path: Path,
        seed: int,
        rate: float,
        session: TrainingRun,
    ):
        self.names = [each.info.name for each in objectives]
        self.all: list[Term] = [each.begin(network) for each in objectives]
        self.default: Any = spec.parse("objectives", "logit-normal").begin(None)
        self.path, self.seed, self.rate, self.team = path, seed, rate, session.team
        self.modules = torch.nn.ModuleList([t.module for t in self.all if t.module is not None])
        self.modules.to(session.device)
        self.optimizer = (
            torch.optim.AdamW(self.modules.parameters(), rate, weight_decay=0.0) if len(self.modules) else None
        )

    @property
    def hooks(self) -> bool:
        """Whether the step's forward pass is more than the plain one."""
        return any(term.hooks for term in self.all)

    def rng(self, index: int, step: int, part: int = 0) -> np.random.Generator:
        """The random numbers of one term in one step and part of its batch, in this process."""
        own = [self.team.rank] if not self.team.leads or part else []
        return np.random.default_rng([self.seed, step, 1 + index, *own, *([part] if part else [])])

    def times(self, uniform: torch.Tensor) -> torch.Tensor:
        """Times (B,) of uniform numbers (B,), float64: float32 on a flow, exact steps of a discrete path."""
        for term in self.all:
            uniform = term.quantiles(uniform)
        found = [t for t in (term.times(uniform) for term in self.all) if t is not None]
        if isinstance(self.path, VP):
            count = len(self.path.alphas_cumprod)
            index = ((found[-1].double() if found else uniform) * count).long().clamp(0, count - 1)
            return (index + 1).double() / count
        return found[-1] if found else self.default.times(uniform)

    def couple(self, x0: torch.Tensor, noise: torch.Tensor, step: int) -> torch.Tensor:
        """The noise for each image."""
        for i, term in enumerate(self.all):  # of the whole batch: the same in every process
            rng = np.random.default_rng([self.seed, step, 1 + i])
            noise = term.couple(x0, noise, rng)
        return noise

    def loss(self, step: TrainingStep, part: int = 0) -> dict[str, torch.Tensor]:
        """The losses of a step, or of a part of its batch, by name; the first is that of the prediction."""
        own = [replace(step, rng=self.rng(i, step.step, part), store={}) for i in range(len(self.all))]
        pairs = list(zip(self.all, own, strict=True))
        found: dict[str, torch.Tensor] = {}
        if not any(term.replaces for term in self.all):
            with ExitStack() as stack:
                for term, each in pairs:
                    stack.enter_context(term.attach(each))
                prediction = step.denoise(step.x, step.t, step.condition)
            for each in own:
                each.prediction = prediction
            errors = error(prediction, step.x0, step.noise)
            reduced = [v for v in (term.reduce(errors, each) for term, each in pairs) if v is not None]
            found["denoising"] = reduced[-1] if reduced else errors.mean()
        for name, term, each in zip(self.names, self.all, own, strict=True):
            found |= {f"{name} {key}": value for key, value in term.loss(each).items()}
        return found

    def step(self, factor: float) -> None:
        """Update what terms train next to the network."""
        if self.optimizer is not None:
            self.team.average(self.modules.parameters())
            torch.nn.utils.clip_grad_norm_(self.modules.parameters(), 1.0)
            self.optimizer.param_groups[0]["lr"] = self.rate * factor
            self.optimizer.step()
            self.optimizer.zero_grad()

    def observe(self, loss: float, step: TrainingStep) -> None:
        """Tell every term the step's loss."""
        for term in self.all:
            term.observe(loss, step)

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
