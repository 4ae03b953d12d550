"""The chosen methods of a sampling run, and the check that the network can carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import UnsupportedError, UsageError
from dit_tools.core.paths import ModelInfo
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
"""Plan field -> category."""
OPTIONAL = ("attention", "tokens", "highres", "combine")
"""Fields that are ``none`` where nothing is said, and not written then."""


SPLIT_GRAPHS = "write the graph in pieces with 'dit export --split', or use --backend torch"


def _usual(category: str, text: str = "none") -> Any:
    return field(default_factory=lambda: spec.parse(category, text))


def needs_of(method: Any) -> frozenset[str]:
    """What a method needs of the network, with its parameters."""
    return getattr(method, "needs", method.info.needs)


@dataclass(frozen=True)
class Plan:
    """Everything that decides how a model is sampled. ``specs()`` writes it, ``parse`` reads it."""

    steps: int
    schedule: Any = _usual("schedules", "native")
    solver: Any = _usual("solvers", "euler")
    guidance: Any = _usual("guidance")
    noise: Any = _usual("noise", "philox")
    cache: Any = _usual("caching")
    attention: Any = _usual("sparse_attention")
    tokens: Any = _usual("token_reduction")
    highres: Any = _usual("highres")
    combine: Any = _usual("composition")

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
        return {name: needs_of(getattr(self, name)) for name in FIELDS}

    def remembering(self) -> tuple[str, ...]:
        """Those methods, as options, that carry something over from one network call to the next."""
        named = {"cache": self.cache, "attention": self.attention, "tokens": self.tokens}
        return tuple(f"--{name} {m.info.name}" for name, m in named.items() if getattr(m, "remembers", True))

    def check_runs(self, by: str) -> None:
        """Raise UsageError for a method that starts sampling runs of its own.

        ``by`` is the option that takes the steps instead, such as ``--method flowedit``.
        """
        if self.combine.info.name != "none":
            message = f"--combine {self.combine.info.name}: it makes the steps itself, and so does {by}"
            raise UsageError(message, "leave one of them out")
        if self.highres.several_runs:
            message = f"--highres {self.highres.info.name}: it draws from noise at several sizes, which {by} does not"
            raise UsageError(message, "use --highres ntk, yarn or time-aware, or leave it out")

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
                    SPLIT_GRAPHS if missing == {"stack"} else "use --backend torch",
                )

    def times(self, model: Any, latent_shape: Sequence[int]) -> tuple[float, ...]:
        """The times of the run for latents (B, C, [F,] H, W)."""
        return self.schedule.times(self.steps, model_info(model, latent_shape))


def model_info(model: Any, latent_shape: Sequence[int]) -> ModelInfo:
    """What schedules and solvers may know of a model and of latents (B, C, [F,] H, W)."""
    family = model.family
    return ModelInfo(model.path, family.tokens(latent_shape), family.scheduler, family.passes_sigmas)
