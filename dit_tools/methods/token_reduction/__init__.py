"""Tokens: run the network on some of the image tokens (``--tokens``).

Contract: ``attach(blocks, run) -> context manager of a Watch``. Inside it the blocks compute only
the tokens that the method has chosen for this call (``dit_tools.nn.token_subset`` takes the others out
before the first block and puts the rest back after the last one). The denoiser hands the ``Watch``
every branch's prediction, whose left-out tokens it fills in, and then the guided prediction, from
which it chooses the tokens of the next call. ``run.grid`` says rows and columns of image tokens.
State is born in ``attach``, keyed by ``run.key``, and dies with it. At its identity
parameters a method is bit-equal to none. ``run.count["tokens computed"]`` and
``run.count["tokens skipped"]`` take the image tokens of every network call.

Helpers: ``_subset``, ``_cells`` and ``dit_tools.nn.token_subset``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dit_tools.core.errors import UsageError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo
from dit_tools.core.run import RunState


class Watch:
    """What a run with tokens left out asks between the network and the solver."""

    def branch(self, name: str, prediction: Prediction) -> Prediction:
        """The prediction of branch ``name``, made whole."""
        return prediction

    def guided(self, prediction: Prediction) -> Prediction:
        """The guided prediction; a method chooses the next call's tokens here."""
        return prediction


class Tokens(ABC):
    """A rule for choosing the image tokens that the network computes."""

    info: ClassVar[MethodInfo]
    whole_runs: ClassVar[bool] = False  # whether its stages begin at pure noise

    @property
    def remembers(self) -> bool:
        """Whether it carries anything over from one network call to the next."""
        return self.info.name != "none"

    def compose(self, plan: Any) -> None:
        """Raise UsageError when the plan has a method that this one cannot run with.

        A cache forecasts a token from calls that computed it, and here not every call does.
        """
        if plan.cache.info.name != "none":
            both = f"--tokens {self.info.name} and --cache {plan.cache.info.name}"
            reason = "a forecast of a token needs calls that computed it"
            raise UsageError(f"{both}: {reason}", "give one of them")

    @abstractmethod
    def attach(self, blocks: Sequence[Any], run: RunState) -> AbstractContextManager[Watch]:
        """Hook the blocks until the context is left; ``blocks`` are ``core.blocks.Block``.

        Raises UnsupportedError when the blocks cannot run on some of their tokens.
        """
