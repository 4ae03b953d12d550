"""The chosen methods of a sampling run, and the check that the network can carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.paths import Target
from dit_tools.core.registry import JOINTS

FIELDS = {
    "schedule": "schedules",
    "solver": "solvers",
    "guidance": "guidance",
    "noise": "noise",
    "cache": "caching",
}
"""Plan field -> room."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides how a model is sampled. ``specs()`` writes it, ``parse`` reads it."""

    steps: int
    schedule: Any
    solver: Any
    guidance: Any
    noise: Any
    cache: Any

    @classmethod
    def parse(cls, steps: int, specs: Mapping[str, str]) -> Plan:
        """A plan from one spec per field. Raises UsageError naming option and parameter."""
        return cls(steps, **{name: spec.parse(FIELDS[name], specs[name]) for name in FIELDS})

    def specs(self) -> dict[str, str]:
        """One spec per field, so that ``Plan.parse(plan.steps, plan.specs()) == plan``."""
        return {name: spec.format(getattr(self, name)) for name in FIELDS}

    def needs(self) -> dict[str, frozenset[str]]:
        """Field -> what its method needs of the network."""
        return {name: getattr(self, name).info.needs for name in FIELDS}

    def check(self, model: Any) -> None:
        """Raise UnsupportedError, with the remedy, when the network lacks what a method needs."""
        for name, needs in self.needs().items():
            missing = needs - model.network.offers
            if missing:
                chosen = getattr(self, name).info.name
                raise UnsupportedError(
                    f"{JOINTS[FIELDS[name]]} {chosen}: this backend has no {', '.join(missing)}",
                    "use --backend torch",
                )

    def times(self, model: Any, latent_shape: Sequence[int]) -> tuple[float, ...]:
        """The times of the run for latents (B, C, [F,] H, W)."""
        return self.schedule.times(self.steps, target(model, latent_shape))


def target(model: Any, latent_shape: Sequence[int]) -> Target:
    """What schedules and solvers may know of a model and of latents (B, C, [F,] H, W)."""
    family = model.family
    return Target(model.path, family.tokens(latent_shape), family.scheduler, family.passes_sigmas)
