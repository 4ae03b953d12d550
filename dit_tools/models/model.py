"""A loaded model: everything that a command needs, behind one interface for both backends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from dit_tools.core.arrays import Array
from dit_tools.core.paths import Path
from dit_tools.models.family import ConditionRequest, Family


class Network(Protocol):
    """A transformer that is called by keyword; ``offers`` says what methods may ask of it."""

    offers: frozenset[str]

    def __call__(self, **inputs: Any) -> Array:
        """The raw output (B, C', h, w)."""
        ...

    def blocks(self) -> list[Any]:
        """The hookable blocks; empty when the network offers none."""
        ...


class Codec(Protocol):
    """The autoencoder between pixels and sampler latents."""

    def encode(self, pixels: Array) -> Array:
        """Pixels (B, 3 or 4, H, W) in [0, 1], numpy, to latents (B, C, h, w)."""
        ...

    def decode(self, latents: Array) -> Array:
        """Latents (B, C, h, w) to pixels (B, 3 or 4, H, W) in [0, 1], numpy float32."""
        ...


@dataclass(frozen=True)
class Defaults:
    """What a run uses when the user says nothing."""

    steps: int
    cfg: float
    size: int
    solver: str
    schedule: str = "native"

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Defaults:
        """What a built-in model's ``dit.json`` states."""
        return cls(
            steps=int(facts["default_steps"]),
            cfg=float(facts["default_cfg"]),
            size=int(facts["size"]),
            solver=facts["solver"],
            schedule=facts.get("schedule", "native"),
        )


@dataclass
class Model:
    """A loaded model.

    ``revision`` is the content hash or commit that goes into metadata. ``alpha`` tells that the
    codec's fourth channel is opacity and its colours are composited over white. ``encode`` turns
    a ConditionRequest into conditions per branch. ``pipe`` is the diffusers pipeline of a torch model.
    ``pipeline`` is set where that pipeline has no adapter and runs itself (``passthrough.py``);
    family, network and codec are stand-ins then. ``second`` is the other model of ``--combine``,
    ``terminal`` the extra step of ``--noise oms`` (``terminal.py``).
    """

    name: str
    revision: str
    family: Family
    network: Network
    codec: Codec
    encode: Callable[[ConditionRequest], dict[str, dict[str, Array]]]
    to_array: Callable[[Any], Array]
    defaults: Defaults
    backend: str
    device: str
    dtype: str
    alpha: bool = False
    pipe: Any = None
    pipeline: Any = None
    second: Model | None = None
    terminal: Any = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The noise path that the model was trained on."""
        return self.family.facts.path
