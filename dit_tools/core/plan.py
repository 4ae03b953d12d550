"""The chosen methods of a sampling run, and the check that the network can carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError
from dit_tools.core.paths import Target
from dit_tools.core.registry import SAMPLING_CATEGORIES

FIELDS = {
    "schedule": "schedules",
    "solver": "solvers",
    "guidance": "guidance",
    "noise": "noise",
    "cache": "caching",
    "attention": "sparse_attention",
    "tokens": "token_reduction",
    "highres": "highres",
    "combine": "composition",
}
"""Plan field -> room."""
OPTIONAL = ("attention", "tokens", "highres", "combine")
"""Fields that are ``none`` where nothing is said, and not written then."""


IN_PIECES = "write the graph in pieces with 'dit export --split', or use --backend torch"


def _none(room: str) -> Any:
    return field(default_factory=lambda: spec.parse(room, "none"))


@dataclass(frozen=True)
class Plan:
    """Everything that decides how a model is sampled. ``specs()`` writes it, ``parse`` reads it."""

    steps: int
    schedule: Any
    solver: Any
    guidance: Any
    noise: Any
    cache: Any
    attention: Any = _none("sparse_attention")
    tokens: Any = _none("token_reduction")
    highres: Any = _none("highres")
    combine: Any = _none("composition")

    @classmethod
    def parse(cls, steps: int, specs: Mapping[str, str]) -> Plan:
        """A plan from one spec per field. Raises UsageError naming option and parameter."""
        given = dict.fromkeys(OPTIONAL, "none") | dict(specs)
        made = cls(steps, **{name: spec.parse(FIELDS[name], given[name]) for name in FIELDS})
        made.compose()
        return made

    def specs(self) -> dict[str, str]:
        """One spec per field, so that ``Plan.parse(plan.steps, plan.specs()) == plan``."""
        texts = {name: spec.format(getattr(self, name)) for name in FIELDS}
        return {k: v for k, v in texts.items() if k not in OPTIONAL or v != "none"}

    def compose(self) -> None:
        """Raise UsageError, with the reason, when two of the methods cannot run together."""
        for name in ("cache", *OPTIONAL):
            getattr(self, name).compose(self)

    def needs(self) -> dict[str, frozenset[str]]:
        """Field -> what its method needs of the network."""
        methods = {name: getattr(self, name) for name in FIELDS}
        return {n: getattr(method, "needs", method.info.needs) for n, method in methods.items()}

    def check(self, model: Any) -> None:
        """Raise UnsupportedError, with the remedy, when the network lacks what a method needs.

        Raises UsageError as ``compose`` does.
        """
        self.compose()
        for name, needs in self.needs().items():
            missing = needs - model.network.offers
            if missing:
                chosen = getattr(self, name).info.name
                raise UnsupportedError(
                    f"{SAMPLING_CATEGORIES[FIELDS[name]]} {chosen}: this backend has no {', '.join(missing)}",
                    IN_PIECES if missing == {"stack"} else "use --backend torch",
                )

    def times(self, model: Any, latent_shape: Sequence[int]) -> tuple[float, ...]:
        """The times of the run for latents (B, C, [F,] H, W)."""
        return self.schedule.times(self.steps, target(model, latent_shape))


def target(model: Any, latent_shape: Sequence[int]) -> Target:
    """What schedules and solvers may know of a model and of latents (B, C, [F,] H, W)."""
    family = model.family
    return Target(model.path, family.tokens(latent_shape), family.scheduler, family.passes_sigmas)
