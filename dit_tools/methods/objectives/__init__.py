"""Room of objectives: what a training step minimizes, beyond plain rectified flow.

A method gives a ``Term`` by ``begin(setting)``; the term holds the state of one run. A recipe lists
methods under ``objectives`` of its stage, ``dit train --objective`` adds more. None is on by
default: rectified flow with logit-normal times, squared error.

A term may choose times, couple noise to data, hook the network, replace the mean of the squared
error, and add a loss. What it trains beside the network (``module``) is kept in the checkpoint and
never in the exported model. Where it draws random numbers it takes ``view.rng``, so that a run
resumes to the bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dit_tools.core.registry import MethodInfo

Tensor = Any


@dataclass(frozen=True)
class Setting:
    """What a term may know when a run begins.

    ``width``: hidden size; ``depth``: blocks; ``grid``: tokens a side; ``patch``: latent pixels a
    token's side; ``pictures``: a function that gives uint8 (N, 4, H, W); ``device`` of the network.
    """

    width: int
    depth: int
    heads: int
    grid: int
    patch: int
    pictures: Any
    device: str = "cpu"


@dataclass
class View:
    """One training step, as terms see it.

    ``networks(x, t, ids, mask)`` gives the velocity (B, C, h, w) and ``average`` that of the moving
    average; ``transformer`` is the hooked part. ``x0``, ``noise``: latents (B, C, h, w); ``t`` (B,)
    in [0, 1]; ``rows`` (B,): which pictures; ``rng``: numpy generator of this term and step.
    """

    networks: Any
    average: Any
    x0: Tensor
    ids: Tensor
    mask: Tensor
    t: Tensor
    noise: Tensor
    rows: Any
    step: int
    steps: int
    rng: Any = None
    store: dict[str, Any] = field(default_factory=dict)

    @property
    def x(self) -> Tensor:
        """The noised latents."""
        at = self.t[:, None, None, None]
        return (1 - at) * self.x0 + at * self.noise


class Term:
    """The state of one objective in one run; every method here leaves training as it is."""

    module: Any = None
    """torch module trained beside the network, or None."""
    hooks = False
    """Whether ``attach``, ``reduce`` or ``extra`` do anything; then the step is not compiled."""

    def quantiles(self, uniform: Tensor) -> Tensor:
        """Where in the density of times to train: (B,) in [0, 1] to (B,) in [0, 1]."""
        return uniform

    def times(self, uniform: Tensor) -> Tensor | None:
        """Times (B,) in [0, 1] of quantiles (B,), or None for the default density."""
        return None

    def couple(self, x0: Tensor, noise: Tensor, rng: Any) -> Tensor:
        """The noise (B, C, h, w) for each picture."""
        return noise

    @contextmanager
    def attach(self, view: View) -> Iterator[None]:
        """Hook the network for this step's forward pass."""
        yield

    def reduce(self, error: Tensor, view: View) -> Tensor | None:
        """The loss of squared errors (B, C, h, w), or None for their mean."""
        return None

    def extra(self, view: View) -> Tensor | None:
        """A loss to add, or None."""
        return None

    def observe(self, loss: float, view: View) -> None:
        """Hear of the step's loss."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers that a resumed run needs, apart from those of ``module``."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""


class Objective(ABC):
    """A way to train."""

    info: ClassVar[MethodInfo]
    stage: ClassVar[str] = "transformer"

    @abstractmethod
    def begin(self, setting: Setting) -> Term:
        """The term of a run."""


def block_of(share: float, depth: int) -> int:
    """Index of the block at that share of the depth, counted from 0."""
    return min(depth - 1, max(0, round(share * depth) - 1))
