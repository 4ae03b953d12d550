"""Objectives: what a training step minimizes, beyond the plain squared error of the prediction.

A method gives a ``Term`` by ``begin(network)``; the term holds the state of one run. A recipe lists
methods under ``objectives`` of a section, ``dit train --objective`` adds more. None is on by
default: squared error at logit-normal times (uniform ones on a discrete path).

A term may choose times, couple noise to data, hook the network, reduce the squared error in its own
way, and add losses. It sees a denoiser of any family on any noise path and latents of any rank; what
it cannot be applied to, ``begin`` refuses with the reason. What it trains next to the network
(``module``) is kept in the checkpoint and never in the exported model. Where it draws random numbers
it takes ``step.rng``, so that a run resumes to the bit.

    class _Smaller(Term):
        def loss(self, step):
            return {"size": 1e-3 * step.prediction.x0.square().mean()}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from dit_tools.core.errors import UnsupportedError
from dit_tools.core.paths import Flow, Path, scales
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.nn import Module, Parameter

    from dit_tools.core.blocks import Block

Condition = Any
"""What a denoiser is told besides latents and times; objectives hand it on and do not look inside."""


class Denoise(Protocol):
    """A network that predicts: the one in training, its moving average, or another model."""

    @property
    def blocks(self) -> Sequence[Block]:
        """The hookable blocks in running order."""
        ...

    def parameters(self) -> Sequence[Parameter]:
        """The parameters of the transformer that are trained; empty for a teacher."""
        ...

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Prediction:
        """The prediction, float32, at latents ``x`` (B, C, ...) and a time in [0, 1] for each, ``t`` (B,)."""
        ...


@dataclass(frozen=True)
class NetworkInfo:
    """What a term may know of the network when a run begins.

    ``width``: size of a hidden state; ``depth``: blocks; ``grid``: image tokens a side; ``patch``:
    latents a token's side; ``images``: gives the training images, uint8 (N, 4, H, W); ``path``: the
    noise path; ``block``: the class of the blocks; ``teacher``: whether steps have a teacher.
    """

    width: int
    depth: int
    grid: int
    patch: int
    images: Callable[[], np.ndarray]
    device: str = "cpu"
    path: Path = Flow()
    block: str = "BasicTransformerBlock"
    teacher: bool = True

    def require_plain_blocks(self, name: str, why: str) -> None:
        """Raise UnsupportedError unless the blocks are those of DiT and PixArt."""
        if self.block != "BasicTransformerBlock":
            raise UnsupportedError(
                f"--objective {name}: {why}, and this network's blocks are {self.block}",
                "leave it out, or train a model with blocks of DiT or PixArt",
            )


@dataclass
class TrainingStep:
    """One training step, as terms see it.

    ``denoise``: the network in training; ``teacher``: its moving average or another model, without
    gradients, or None. ``x0``, ``noise``: clean latents and noise (B, C, ...); ``t`` (B,): times in
    [0, 1], 1 is noise; ``path``: how they are mixed. ``rows`` (B,): which images. ``step`` of
    ``steps``. ``rng``: random numbers of this term and step; ``store``: what this term keeps within the
    step. ``prediction``: what ``denoise`` said about ``x``; None until the forward pass is made, and
    where a term replaces the plain loss.
    """

    denoise: Denoise
    teacher: Denoise | None
    x0: Tensor
    condition: Condition
    t: Tensor
    noise: Tensor
    path: Path
    rows: np.ndarray
    step: int = 0
    steps: int = 1
    rng: Any = None
    prediction: Prediction | None = None
    store: dict[str, Any] = field(default_factory=dict)

    def noised(self, t: Tensor) -> Tensor:
        """The same images and noise mixed at times ``t`` (B,): ``alpha x0 + sigma noise``."""
        alpha, sigma = scales(self.path, t, self.x0)
        return alpha * self.x0 + sigma * self.noise

    @property
    def x(self) -> Tensor:
        """The noised latents at this step's times."""
        return self.noised(self.t)


class Term:
    """The state of one objective in one run; every method here leaves training as it is."""

    module: Module | None = None
    """What is trained next to the network, or None."""
    hooks: bool = False
    """Whether ``attach``, ``reduce`` or ``loss`` do anything; if so, the step is not compiled."""
    replaces: bool = False
    """Whether ``loss`` stands in for the squared error of the prediction, which then is not made."""

    def quantiles(self, uniform: Tensor) -> Tensor:
        """Where in the density of times to train: (B,) in [0, 1] to (B,) in [0, 1]."""
        return uniform

    def times(self, uniform: Tensor) -> Tensor | None:
        """Times (B,) in [0, 1] of quantiles (B,), or None for the default density."""
        return None

    def couple(self, x0: Tensor, noise: Tensor, rng: np.random.Generator) -> Tensor:
        """The noise (B, C, ...) for each image of the whole batch."""
        return noise

    @contextmanager
    def attach(self, step: TrainingStep) -> Iterator[None]:
        """Hook the network for this step's forward pass."""
        yield

    def reduce(self, error: Tensor, step: TrainingStep) -> Tensor | None:
        """The loss of squared errors (B, C, ...), or None for their mean.

        It must be a mean over samples, as a batch may go through the network in parts.
        """
        return None

    def loss(self, step: TrainingStep) -> Mapping[str, Tensor]:
        """Losses to add, scalars by name, each a mean over the samples of the step."""
        return {}

    def observe(self, loss: float, step: TrainingStep) -> None:
        """Receive the value of the step's whole loss."""

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
    def begin(self, network: NetworkInfo | None) -> Term:
        """The term of a run. Raises UnsupportedError for a network that it cannot be applied to.

        None stands for a network that nothing is known of: a term that looks at none takes it.
        """


def block_of(share: float, depth: int) -> int:
    """Index of the block at that share of the depth, counted from 0."""
    return min(depth - 1, max(0, round(share * depth) - 1))
